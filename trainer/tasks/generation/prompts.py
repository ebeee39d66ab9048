"""Prompts and answers as tokens, from templates over columns or from chat messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any

from trainer.data.columns import holds_objects_as_text
from trainer.data.conversations import read_conversation
from trainer.data.encoded import Summary
from trainer.errors import DataError
from trainer.models.tokenizers.special_tokens import SpecialTokens, TextTokenizer
from trainer.recipe.data import Columns
from trainer.tasks.causal_lm.settings import CausalLMSettings
from trainer.tasks.generation.chat import Chat, Segment

if TYPE_CHECKING:
    from datasets import Dataset

PAIR: tuple[str, ...] = ("prompt", "completion")
"""Columns that may hold the messages of a conversation in place of data.columns.messages."""


@dataclass(frozen=True)
class Texts:
    """A row as a sequence of texts."""

    segments: list[Segment]
    guarded: bool
    """Whether text from data is guarded, so that it is not read as special tokens."""


class Prompts:
    """Turns a row into tokens, and flags those of the answers as learned.

    Each text is tokenised by itself, so a prompt has the same tokens as in generation.
    """

    def __init__(
        self,
        settings: CausalLMSettings,
        columns: Columns,
        tokenizer: Any,
        special_tokens: SpecialTokens = "literal",
    ) -> None:
        self.templates = (settings.prompt, settings.completion)
        self.names = columns
        named = settings.template_columns()
        self.named = list(dict.fromkeys(name for _, name in named))
        self.prompt_columns = list(dict.fromkeys(name for key, name in named if key == "prompt"))
        self.tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.chat = Chat(self.tokenizer) if settings.chat else None
        self.begin, self.end = boundaries(tokenizer)

    def columns(self, present: Sequence[str]) -> list[str]:
        """Returns which of the columns that are present are read."""
        if self.chat is None:
            return self.named
        return list(chat_columns(self.names, present).values())

    def settings(self) -> dict[str, Any]:
        """Returns what the tokens of a row depend on, besides the row and the tokenizer."""
        if self.chat is None:
            return {"templates": self.templates, "messages": None, "chat_template": None}
        optional = {key: getattr(self.names, key) for key in ("tools", "system")}
        return {
            "templates": self.templates,
            "messages": self.names.messages,
            "chat_template": self.chat.template,
            **{key: name for key, name in optional.items() if name is not None},
        }

    def texts(self, row: Mapping[str, Any], summary: Summary, *, filled: bool = False) -> Texts:
        """Returns the texts of a row. Raises DataError if it has no answer.

        `filled` says that each object in the row has every key of the column, some with null.
        """
        if self.chat is None:
            return self._filled(row, summary)
        names = chat_columns(self.names, list(row))
        messages = [row[name] for key, name in names.items() if key in ("messages", *PAIR)]
        optional = {key: row[name] for key, name in names.items() if key in ("tools", "system")}
        conversation = read_conversation(messages, **optional, filled=filled)
        return Texts(*self.chat.segments(conversation, summary))

    def opening(self, row: Mapping[str, Any], summary: Summary) -> list[int]:
        """Returns the tokens of a row up to its answer, which the row need not have.

        In a conversation that ends with an answer, they are the messages before its first answer,
        in another all messages. Raises DataError if the row cannot be rendered.
        """
        if self.chat is None:
            values, guarded = self._values(row, self.prompt_columns, summary)
            text = _fill(self.templates[0] or "", values)
        else:
            names = chat_columns(self.names, list(row))
            messages = names.get("messages", PAIR[0])
            if self.names.messages not in row and PAIR[0] in row:
                messages = PAIR[0]
            optional = {key: row[name] for key, name in names.items() if key in ("tools", "system")}
            # Rows of a table have nulls for keys that only other rows have.
            conversation = read_conversation([row[messages]], **optional, filled=True)
            text, guarded = self.chat.opening(conversation, summary)
        (tokens,) = self.tokenizer.templated([text], [guarded])
        return tokens if self.chat is not None else [*self.begin, *tokens]

    def encode(self, rows: Sequence[Texts]) -> list[tuple[list[int], list[int]] | DataError]:
        """Returns the tokens of each row, with a flag for each token: 1 if it is learned.

        The first token is never learned, because nothing predicts it. If the answers of a row have
        no tokens, a DataError takes its place.
        """
        texts = [text for row in rows for text, _ in row.segments]
        guarded = [row.guarded for row in rows for _ in row.segments]
        tokens = iter(self.tokenizer.templated(texts, guarded))
        return [self._joined(row, [next(tokens) for _ in row.segments]) for row in rows]

    def _joined(
        self, row: Texts, tokens: list[list[int]]
    ) -> tuple[list[int], list[int]] | DataError:
        joined = list(self.begin) if self.chat is None else []
        flags = [0] * len(joined)
        for (_, learned), ids in zip(row.segments, tokens, strict=True):
            if learned and self.chat is None:
                ids = [*ids, *self.end]
            joined += ids
            flags += [int(learned)] * len(ids)
        flags[:1] = [0]
        if not any(flags):
            return DataError(
                "the answer has no tokens", key="data.columns", hint="fix or remove the row"
            )
        return joined, flags

    def turn_end(self) -> list[int]:
        """Returns the id of the token with which the chat template ends an answer, if there is one.

        It is the added token that follows an answer at once, or else the next special token.
        """
        if self.chat is None:
            return []
        content = "0123456789"  # a text that no template contains
        turns = [{"role": "user", "content": content}, {"role": "assistant", "content": content}]
        try:
            _, _, end = self.chat.rendered(turns, answer_follows=False).rpartition(content)
        except DataError:
            return []
        tokenizer = self.tokenizer.tokenizer
        known = tokenizer.added_tokens_decoder
        ids = tokenizer(end.lstrip(), add_special_tokens=False)["input_ids"]
        first = ids[:1] if ids and ids[0] in known else []
        return first or [index for index in ids if index in known and known[index].special][:1]

    def _filled(self, row: Mapping[str, Any], summary: Summary) -> Texts:
        plain = {name: _text_of(row[name]) for name in self.named}
        if not _fill(self.templates[1] or "", plain).strip():
            raise DataError(
                "the completion is empty", key="task.completion", hint="fix or remove the row"
            )
        values, guarded = self._values(row, self.named, summary)
        prompt, answer = (_fill(template or "", values) for template in self.templates)
        return Texts([(prompt, False), (answer, True)], guarded)

    def _values(
        self, row: Mapping[str, Any], names: Sequence[str], summary: Summary
    ) -> tuple[dict[str, str], bool]:
        """Returns the values of some columns as text, and whether they are guarded."""
        values = {name: _text_of(row[name]) for name in names}
        special = self.tokenizer.special_in(values)
        guarded = special is not None and self.tokenizer.literal
        if special is not None:
            self.tokenizer.remark(special, summary)
        if guarded:
            values = {name: self.tokenizer.guard(value) for name, value in values.items()}
        return values, guarded


def _text_of(value: Any) -> str:
    return "" if value is None else str(value)


def chat_columns(names: Columns, present: Sequence[str]) -> dict[str, str]:
    """Returns the columns of conversations by what they hold: `messages`, or `prompt` and
    `completion` if there are only those; and `tools` and `system` if the rows have them."""
    columns = {"messages": names.messages}
    if names.messages not in present and all(name in present for name in PAIR):
        columns = dict(zip(PAIR, PAIR, strict=True))
    for key in ("tools", "system"):
        name = getattr(names, key)
        if name is not None and (name in present or name != key):
            columns[key] = name
    return columns


def are_filled(rows: "Dataset", names: Sequence[str]) -> bool:
    """Returns whether each object in these columns has every key of its column, some with null."""
    return not any(holds_objects_as_text(rows.features[name]) for name in names)


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Returns a template filled with values; unlike in str.format, names may have dots."""
    return "".join(
        literal + ("" if name is None else values[name])
        for literal, name, _, _ in Formatter().parse(template)
    )


def whole_texts(
    tokenizer: TextTokenizer, texts: list[str], summary: Summary | None = None
) -> list[list[int]]:
    """Returns the tokens of each text, between the tokens of its `boundaries`."""
    begin, end = boundaries(tokenizer.tokenizer)
    encoded = tokenizer.tokens(texts)
    for token in encoded.special.values():
        if summary is not None:
            tokenizer.remark(token, summary)
    return [[*begin, *ids, *end] for ids in encoded.columns["input_ids"]]


def boundaries(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the token ids before and after a text: at most one each.

    Before it is the BOS or CLS token, if the tokenizer adds it; after it the EOS or else the SEP
    token.
    """
    added = tokenizer("")["input_ids"]
    first_ids = (tokenizer.bos_token_id, tokenizer.cls_token_id)
    begin = [index for index in added[:1] if index in first_ids]
    last_ids = (tokenizer.eos_token_id, tokenizer.sep_token_id)
    ends = [index for index in last_ids if index is not None]
    return begin, ends[:1]
