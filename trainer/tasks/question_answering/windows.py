"""Windows: a question with a part of its context that fits into the model.

Tokenizers cut such windows too (truncation="only_second", stride). Here question and context are
tokenized once each and joined here because a decoder needs an end token after the context, a pair
separator may be ours, a special token in the text may be literal, and a stride that leaves too
little new context is a sentence about the row instead of a failed assertion of the tokenizer.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from trainer.errors import ConfigError
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.tasks.question_answering.questions import Question

MIN_NEW_CONTEXT = 8
"""Minimum number of new context tokens per window of a longer context."""


@dataclass(frozen=True)
class PairTemplate:
    """What a tokenizer puts before a question, between it and its context, and after both."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, ...] | None
    """Token types of these five parts in their order; None for models without them."""
    null_is_last: bool
    """Whether "no answer" is the last position of a window; else it is that of the CLS token."""
    cls_token_id: int | None

    @classmethod
    def of(cls, tokenizer: Any, *, is_decoder: bool) -> Self:
        """Returns the template of a tokenizer, with an end token for a decoder.

        Raises ConfigError for a tokenizer that does not say where in a text its tokens are.
        """
        if not tokenizer.is_fast:
            raise ConfigError(
                f"model.tokenizer: a {type(tokenizer).__name__} does not say where in a text its "
                f"tokens are",
                key="model.tokenizer",
                value=type(tokenizer).__name__,
                hint="use a tokenizer with a tokenizer.json, or train one",
            )
        encoded = tokenizer("a", "a", return_attention_mask=False)
        ids, texts = encoded["input_ids"], encoded.sequence_ids(0)
        first, second = texts.index(0), texts.index(1)
        ends = [len(texts) - texts[::-1].index(0), len(texts) - texts[::-1].index(1)]
        after = list(ids[ends[1] :])
        types: list[int] | None = None
        if "token_type_ids" in encoded:
            given = encoded["token_type_ids"]
            question, context = given[first], given[second]
            types = [
                given[0] if first else question,
                question,
                given[ends[0]] if ends[0] < second else question,
                context,
                given[-1] if after else context,
            ]
        cls_token_id = tokenizer.cls_token_id
        # A decoder's first position has seen nothing and cannot know that there is no answer: the
        # last one has seen question and context, so a window has to end with a token of its own.
        if is_decoder and not after:
            last = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
            after.append(next(one for one in last if one is not None))
        return cls(
            before=tuple(ids[:first]),
            between=tuple(ids[ends[0] : second]),
            after=tuple(after),
            types=None if types is None else tuple(types),
            null_is_last=is_decoder,
            cls_token_id=cls_token_id,
        )

    def __len__(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)

    def join(self, question: list[int], context: list[int]) -> list[int]:
        """Returns the tokens of a window."""
        return [*self.before, *question, *self.between, *context, *self.after]

    def token_types(self, question: int, context: int) -> list[int]:
        """Returns the token types of a window with so many tokens of question and context."""
        assert self.types is not None
        lengths = (len(self.before), question, len(self.between), context, len(self.after))
        parts = zip(self.types, lengths, strict=True)
        return [one for kind, length in parts for one in [kind] * length]

    def null_position(self, tokens: list[int]) -> int:
        """Returns where in a window "no answer" stands."""
        if self.null_is_last:
            return len(tokens) - 1
        return tokens.index(self.cls_token_id) if self.cls_token_id in tokens else 0


@dataclass(frozen=True)
class TokenizedText:
    """Tokens of a text and the characters they stand for, without those around a text."""

    tokens: list[int]
    starts: np.ndarray
    ends: np.ndarray
    special: str | None = None
    """A special token that it holds."""

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Returns the first and the last token of the fewest that cover characters [start, end).

        Characters that give no token, such as spaces, need not be covered. None if none gives one.
        """
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.starts, end, side="left")) - 1
        return (first, last) if first <= last else None


def tokenize(tokenizer: TextTokenizer, texts: Sequence[str]) -> dict[str, TokenizedText]:
    """Returns the tokens of each text, those that come several times once."""
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    encoded = tokenizer.encode(
        unique,
        add_special_tokens=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,  # that a text is longer than the model is what windows are for
    )
    made: dict[str, TokenizedText] = {}
    columns = encoded.columns
    for index, (text, ids, places) in enumerate(
        zip(unique, columns["input_ids"], columns["offset_mapping"], strict=True)
    ):
        offsets = np.array(places, np.int64).reshape(-1, 2)
        special = encoded.special.get(index)
        made[text] = TokenizedText(list(ids), offsets[:, 0], offsets[:, 1], special)
    return made


def cut(length: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Returns first and end of windows of `room` tokens that share `stride` with the one before."""
    assert length <= room or room > stride
    start = 0
    while True:
        end = min(start + room, length)
        yield start, end
        if end == length:
            return
        start += room - stride


def windows_of(
    question: Question,
    asked: TokenizedText,
    context: TokenizedText,
    *,
    template: PairTemplate,
    max_seq_length: int,
    stride: int,
) -> list[dict[str, Any]] | str:
    """Returns the windows of a question, or a sentence that says why it has none.

    Of each: `input_ids`, `token_type_ids` for models with them, `token_starts` and `token_ends`,
    which are characters, of the context's tokens, `context_start`, the position of the first of
    them, and the positions `start`, `end` and `null`.
    """
    length, room = len(context.tokens), max_seq_length - len(template) - len(asked.tokens)
    if length == 0:
        return f"{question.place}: the context gives no token; fix or remove the row"
    if length > room < stride + MIN_NEW_CONTEXT:
        return (
            f"{question.place}: the question has {len(asked.tokens)} tokens, which with "
            f"task.stride={stride} leaves {max(room - stride, 0)} of batch.max_seq_length="
            f"{max_seq_length} for new context, and {MIN_NEW_CONTEXT} are needed; use a longer "
            f"sequence or a smaller stride"
        )
    target = None
    if question.answers:
        text, start = question.answers[0]
        target = context.span(start, start + len(text))
        if target is None:
            return f"{question.place}: the answer {text!r} gives no token; fix or remove the row"
    context_start = len(template.before) + len(asked.tokens) + len(template.between)
    windows: list[dict[str, Any]] = []
    for begin, end in cut(length, room, stride):
        tokens = template.join(asked.tokens, context.tokens[begin:end])
        null = template.null_position(tokens)
        positions = (null, null)
        if target is not None and begin <= target[0] and target[1] < end:
            positions = tuple(context_start + token - begin for token in target)
        window = {
            "input_ids": tokens,
            "token_starts": context.starts[begin:end].tolist(),
            "token_ends": context.ends[begin:end].tolist(),
            "context_start": context_start,
            "null": null,
            "start": positions[0],
            "end": positions[1],
        }
        if template.types is not None:
            window["token_type_ids"] = template.token_types(len(asked.tokens), end - begin)
        windows.append(window)
    return windows
