"""Windows: a question with as much of its context as fits into the model.

Tokenizers cut such windows, too (truncation="only_second", stride). Here question and context are
tokenized once each and joined by hand for four reasons: a decoder needs an end token after the
context, the pair separator may come from the recipe, a special token in the text may be literal,
and a stride that leaves too little new context must give a message about the row, not a failed
assertion.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from trainer.errors import ConfigError, DataError
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.tasks.question_answering.questions import Question

MIN_NEW_CONTEXT = 8
"""Minimum number of new context tokens per window of a longer context."""


@dataclass(frozen=True)
class PairTemplate:
    """The tokens that a tokenizer puts before a question, before its context, and after both."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, ...] | None
    """Token types of the five parts of a window, in order; None for models without token types."""
    null_is_last: bool
    """Whether the last position of a window means "no answer"; otherwise the CLS token's does."""
    cls_token_id: int | None

    @classmethod
    def of(cls, tokenizer: Any, *, is_decoder: bool) -> Self:
        """Returns the template of a tokenizer; a decoder's ends with a token after the context.

        Raises ConfigError if the tokenizer does not say where in a text its tokens are.
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
            type_ids = encoded["token_type_ids"]
            question, context = type_ids[first], type_ids[second]
            types = [
                type_ids[0] if first else question,
                question,
                type_ids[ends[0]] if ends[0] < second else question,
                context,
                type_ids[-1] if after else context,
            ]
        cls_token_id = tokenizer.cls_token_id
        # "No answer" needs a position that has seen question and context: in a decoder only the
        # last one has, so a window must end with a token after the context.
        if is_decoder and not after:
            candidates = (tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id)
            after.append(next(index for index in candidates if index is not None))
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
        """Returns the token types of a window from the number of tokens of question and context."""
        assert self.types is not None
        lengths = (len(self.before), question, len(self.between), context, len(self.after))
        parts = zip(self.types, lengths, strict=True)
        return [type_id for kind, length in parts for type_id in [kind] * length]

    def null_position(self, tokens: list[int]) -> int:
        """Returns the position in a window that means "no answer"."""
        if self.null_is_last:
            return len(tokens) - 1
        return tokens.index(self.cls_token_id) if self.cls_token_id in tokens else 0


@dataclass(frozen=True)
class TokenizedText:
    """The tokens of a text, without special ones around it, and the characters they stand for."""

    tokens: list[int]
    starts: np.ndarray
    ends: np.ndarray
    special: str | None = None
    """A special token that the text contains, if any."""

    def span(self, start: int, end: int) -> tuple[int, int] | None:
        """Returns the first and the last of the fewest tokens that cover characters [start, end).

        Characters without a token, such as spaces, need not be covered. None if no character has a
        token.
        """
        first = int(np.searchsorted(self.ends, start, side="right"))
        last = int(np.searchsorted(self.starts, end, side="left")) - 1
        return (first, last) if first <= last else None


def tokenize(tokenizer: TextTokenizer, texts: Sequence[str]) -> dict[str, TokenizedText]:
    """Returns the tokens of each distinct text."""
    unique = list(dict.fromkeys(texts))
    if not unique:
        return {}
    encoded = tokenizer.encode(
        unique,
        add_special_tokens=False,
        return_token_type_ids=False,
        return_offsets_mapping=True,
        verbose=False,  # no warning about long texts: they are cut into windows
    )
    tokenized: dict[str, TokenizedText] = {}
    columns = encoded.columns
    for index, (text, ids, places) in enumerate(
        zip(unique, columns["input_ids"], columns["offset_mapping"], strict=True)
    ):
        offsets = np.array(places, np.int64).reshape(-1, 2)
        special = encoded.special.get(index)
        tokenized[text] = TokenizedText(list(ids), offsets[:, 0], offsets[:, 1], special)
    return tokenized


def cut(length: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """Yields start and end of windows of `room` tokens, each of which shares `stride` tokens with
    the one before."""
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
    question_tokens: TokenizedText,
    context: TokenizedText,
    *,
    template: PairTemplate,
    max_seq_length: int,
    stride: int,
) -> list[dict[str, Any]] | DataError:
    """Returns the windows of a question, or an error that says why it has none.

    A window has `input_ids` and, for models with them, `token_type_ids`. `context_start` is the
    position of the first context token. `token_starts[i]` and `token_ends[i]` are the characters of
    context token i. `start` and `end` are the positions of the answer's first and last token; both
    are `null`, the position that means "no answer", unless the window has the whole answer.
    """
    num_asked = len(question_tokens.tokens)
    length, room = len(context.tokens), max_seq_length - len(template) - num_asked
    if length == 0:
        return DataError(
            f"{question.place}: the context gives no token",
            key="data.columns.context",
            value=question.context,
            hint="fix or remove the row",
        )
    if length > room < stride + MIN_NEW_CONTEXT:
        return DataError(
            f"{question.place}: the question has {num_asked} tokens, which with "
            f"task.stride={stride} leaves {max(room - stride, 0)} of batch.max_seq_length="
            f"{max_seq_length} for new context, and {MIN_NEW_CONTEXT} are needed",
            key="task.stride",
            value=stride,
            hint="use a longer sequence or a smaller stride",
        )
    target = None
    if question.answers:
        text, start = question.answers[0]
        target = context.span(start, start + len(text))
        if target is None:
            return DataError(
                f"{question.place}: the answer {text!r} gives no token",
                key="data.columns.answers",
                value=text,
                hint="fix or remove the row",
            )
    context_start = len(template.before) + num_asked + len(template.between)
    windows: list[dict[str, Any]] = []
    for begin, end in cut(length, room, stride):
        tokens = template.join(question_tokens.tokens, context.tokens[begin:end])
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
            window["token_type_ids"] = template.token_types(num_asked, end - begin)
        windows.append(window)
    return windows
