"""Continuations of prompts, of conversations, or of plain text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from trainer.data.columns import ROW, column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.errors import ConfigError, DataError
from trainer.models.positions import num_positions
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.recipe.schema import Recipe
from trainer.tasks.causal_lm.settings import CausalLMSettings
from trainer.tasks.generation.generator import Generator
from trainer.tasks.generation.prompts import PAIR, Prompts, boundaries
from trainer.tasks.predictor import Predictor, encode_rows
from trainer.tasks.reported import Record

if TYPE_CHECKING:
    from datasets import Dataset


class CausalLMPredictor(Predictor):
    """Continues a prompt greedily, as evaluations do.

    The prompt is the recipe's, filled from the columns; the messages of a conversation, up to an
    answer; or a text. An answer has `prediction`, the generated text.
    """

    fields = ("prediction",)

    def __init__(
        self,
        settings: CausalLMSettings,
        recipe: Recipe,
        tokenizer: Any,
        num_positions: int | None,
    ) -> None:
        names, special_tokens = recipe.data.columns, recipe.data.special_tokens
        self.tokenizer = tokenizer
        self.text_tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.num_positions = num_positions
        self.names = names
        self.prompts = (
            Prompts(settings, names, tokenizer, special_tokens) if settings.instructs else None
        )
        turn_end = self.prompts.turn_end() if self.prompts is not None else []
        self.generator = Generator(
            settings.generation, tokenizer, num_positions, turn_end, own_tokenizer=True
        )
        self.columns = {"text": names.text}
        if settings.chat:
            self.columns = {"messages": names.messages}
        elif self.prompts is not None:
            self.columns = {name: name for name in self.prompts.prompt_columns}
        self.chats = settings.chat

    @classmethod
    def build(
        cls, recipe: Recipe, tokenizer: Any, model_config: Any, validation: Mapping[str, Any]
    ) -> Self:
        assert isinstance(recipe.task, CausalLMSettings)
        if recipe.task.chat and not tokenizer.chat_template:
            raise ConfigError(
                "task.chat: the tokenizer has no chat template",
                key="task.chat",
                value=True,
                hint="set task.chat: false",
            )
        return cls(recipe.task, recipe, tokenizer, num_positions(model_config))

    def columns_in(self, present: Sequence[str]) -> Mapping[str, Any]:
        if not self.chats:
            return self.columns
        columns: dict[str, Any] = dict(self.columns)
        if self.names.messages.partition(".")[0] not in present and "messages" not in present:
            if PAIR[0] in present:
                columns = {PAIR[0]: PAIR[0]}
            elif "text" in present:
                columns = {"text": self.names.text}
        for key in ("tools", "system"):
            name = getattr(self.names, key)
            if name is not None and name in present:
                columns[key] = name
        return columns

    def key_of(self, role: str) -> str:
        return super().key_of(role) if self.prompts is None or self.chats else "task.prompt"

    def of_texts(self, texts: Sequence[str]) -> dict[str, Any]:
        return {"text": texts[0]} if self.chats else super().of_texts(texts)

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields input_ids, the tokens of a prompt, and `row`."""
        names = [name for name in rows.column_names if name != ROW]
        return encode_rows(rows, names, lambda row: self._tokens(row, summary), summary)

    def _tokens(self, row: Mapping[str, Any], summary: Summary) -> list[int]:
        text = column_name(self.names.text)
        if self.chats and text in row:
            row = {**row, self.names.messages: _message(row[text], text)}
        if self.prompts is not None:
            ids = self.prompts.opening(row, summary)
        else:
            begin, _ = boundaries(self.tokenizer)
            _check_text(row[text], text)
            (tokens,) = self.text_tokenizer.tokens([row[text]]).columns["input_ids"]
            ids = [*begin, *tokens]
        if not ids:
            raise DataError("the prompt has no tokens", key="data.columns", hint="fix the row")
        if self.num_positions is not None and len(ids) >= self.num_positions:
            raise DataError(
                f"the prompt has {len(ids)} tokens, and the model {self.num_positions} positions",
                key="task.generation.max_new_tokens",
                value=len(ids),
                hint="shorten it",
            )
        return ids

    def records(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        prompts = [split.ragged("input_ids")[index] for index in ids.tolist()]
        texts = self.generator.generate(model, prompts)
        rows = split.array("row")[ids].tolist()
        return [{"row": row, "prediction": text} for row, text in zip(rows, texts, strict=True)]

    def stream(self, model: Any, row: Mapping[str, Any], show: Callable[[str], None]) -> str:
        """Returns the continuation of one row, and calls `show` with each of its pieces as soon as
        that is known.

        Raises DataError for a row that has none.
        """
        tokens = self._tokens(row, Summary())
        return self.generator.stream(model, np.array(tokens, np.int64), show)

    def answers(self, records: list[Record], split: PreparedSplit) -> dict[int, Record]:
        return {record["row"]: {"prediction": record["prediction"]} for record in records}


def _message(text: Any, name: str) -> list[dict[str, str]]:
    _check_text(text, name)
    return [{"role": "user", "content": text}]


def _check_text(text: Any, name: str) -> None:
    if not isinstance(text, str) or not text.strip():
        raise DataError(
            f"the column {name} has no text",
            key="data.columns.text",
            value=text,
            hint="fix or remove the row",
        )
