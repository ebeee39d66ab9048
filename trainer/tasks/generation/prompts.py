"""Prompts and answers as tokens: of templates over columns, or of chat messages."""

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
    """A row as texts in turn."""

    segments: list[Segment]
    guarded: bool
    """Whether values of data in them are guarded against being special tokens."""


class Prompts:
    """Turns a row into tokens of which those of the answers are learned.

    Each text is tokenised by itself: a prompt has the tokens that it has when a model is asked.
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
        self.named = list(dict.fromkeys(name for _, name in settings.template_columns()))
        self.tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.chat = Chat(self.tokenizer) if settings.chat else None
        self.begin, self.end = boundaries(tokenizer)

    def columns(self, present: Sequence[str]) -> list[str]:
        """Returns the columns that are read, of those that are present."""
        if self.chat is None:
            return self.named
        return list(chat_columns(self.names, present).values())

    def settings(self) -> dict[str, Any]:
        """Returns what decides the tokens of a row, beside row and tokenizer."""
        if self.chat is None:
            return {"templates": self.templates, "messages": None, "chat_template": None}
        others = {key: getattr(self.names, key) for key in ("tools", "system")}
        return {
            "templates": self.templates,
            "messages": self.names.messages,
            "chat_template": self.chat.template,
            **{key: name for key, name in others.items() if name is not None},
        }

    def texts(self, row: Mapping[str, Any], summary: Summary, *, filled: bool = False) -> Texts:
        """Returns the texts of a row; raises DataError for one without an answer.

        `filled` says that objects in the row have a null for each key that only others have.
        """
        if self.chat is None:
            return self._filled(row, summary)
        names = chat_columns(self.names, list(row))
        messages = [row[name] for key, name in names.items() if key in ("messages", *PAIR)]
        others = {key: row[name] for key, name in names.items() if key in ("tools", "system")}
        conversation = read_conversation(messages, **others, filled=filled)
        return Texts(*self.chat.segments(conversation, summary))

    def encode(self, rows: Sequence[Texts]) -> list[tuple[list[int], list[int]] | DataError]:
        """Returns the tokens of each row, and 1 for each that is learned.

        The first is never learned, for nothing predicts it. A row whose answer gives no token has a
        DataError in its place.
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
            return DataError("the answer has no tokens; fix or remove the row")
        return joined, flags

    def turn_end(self) -> list[int]:
        """Returns the token with which the chat template ends an answer; none without.

        A special one, or another that was added to the tokenizer and follows at once.
        """
        if self.chat is None:
            return []
        content = "0123456789"  # that no template has
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
        values = {name: "" if row[name] is None else str(row[name]) for name in self.named}
        special = self.tokenizer.special_in(values)
        guarded = special is not None and self.tokenizer.literal
        prompt, answer = (_fill(template or "", values) for template in self.templates)
        if not answer.strip():
            raise DataError("the completion is empty; fix or remove the row")
        if special is not None:
            self.tokenizer.remark(special, summary)
        if guarded:
            values = {name: self.tokenizer.guard(value) for name, value in values.items()}
            prompt, answer = (_fill(template or "", values) for template in self.templates)
        return Texts([(prompt, False), (answer, True)], guarded)


def chat_columns(names: Columns, present: Sequence[str]) -> dict[str, str]:
    """Returns the columns of conversations by what they hold: messages, or prompt and completion
    where there are only those; and tools and system prompts where there are some."""
    found = {"messages": names.messages}
    if names.messages not in present and all(name in present for name in PAIR):
        found = dict(zip(PAIR, PAIR, strict=True))
    for key in ("tools", "system"):
        name = getattr(names, key)
        if name is not None and (name in present or name != key):
            found[key] = name
    return found


def are_filled(rows: "Dataset", names: Sequence[str]) -> bool:
    """Returns whether objects in these columns have a null for each key that only others have."""
    return not any(holds_objects_as_text(rows.features[name]) for name in names)


def _fill(template: str, values: Mapping[str, str]) -> str:
    """Returns a template with the values of its columns, whose names may have dots."""
    return "".join(
        literal + ("" if name is None else values[name])
        for literal, name, _, _ in Formatter().parse(template)
    )


def whole_texts(
    tokenizer: TextTokenizer, texts: list[str], summary: Summary | None = None
) -> list[list[int]]:
    """Returns the tokens of texts, each with its beginning and its end."""
    begin, end = boundaries(tokenizer.tokenizer)
    made = tokenizer.tokens(texts)
    for token in made.special.values():
        if summary is not None:
            tokenizer.remark(token, summary)
    return [[*begin, *ids, *end] for ids in made.columns["input_ids"]]


def boundaries(tokenizer: Any) -> tuple[list[int], list[int]]:
    """Returns the tokens before and after a text: what the tokenizer puts first, and the end."""
    around = tokenizer("")["input_ids"]
    firsts, lasts = ("bos_token_id", "cls_token_id"), ("eos_token_id", "sep_token_id")
    begin = [index for index in around[:1] if index in [getattr(tokenizer, one) for one in firsts]]
    ends = [index for one in lasts if (index := getattr(tokenizer, one)) is not None]
    return begin, ends[:1]
