"""Text in the data that spells a special token, such as </s> or [MASK]: kept as text or parsed."""

import copy
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, cast

from trainer.data.encoded import Summary
from trainer.errors import ConfigError, DataError
from trainer.wording import excerpt

SpecialTokens = Literal["literal", "parsed"]
GUARD = "\U0010fffe"
"""Follows the first character of data that spells a special token. No text contains it."""
NAME = "\U0010fffd"
"""Encloses the substitute name of a special token, which only a template can contain."""


@dataclass(frozen=True)
class Encoded:
    """Encoded texts."""

    columns: dict[str, list[Any]]
    """The tokenizer's output by name, such as input_ids, with one entry per text."""
    special: dict[int, str]
    """For each text that contains a special token: its index, and one such token."""


class TextTokenizer:
    """Tokenizes data. With `special_tokens="literal"`, text that spells a special token stays text;
    with "parsed" it becomes the token.

    Tokenizers parse such text by default, and `split_special_tokens` does not prevent it in all of
    them: the vocabulary of a unigram model contains </s> as a piece. Literal texts that spell one
    are therefore encoded by a copy of the tokenizer in which special tokens have substitute names.
    All other texts go to the original.
    """

    def __init__(self, tokenizer: Any, special_tokens: SpecialTokens = "literal") -> None:
        self.tokenizer = tokenizer
        self.literal = special_tokens == "literal"

    def encode(self, *texts: Sequence[str], **settings: Any) -> Encoded:
        """Returns the encoded texts, or pairs of texts; `settings` go to the tokenizer's call.

        Raises ConfigError if the tokenizer cannot read special tokens as text.
        """
        encoded = self.tokenizer(*map(list, texts), return_attention_mask=False, **settings)
        columns = {name: list(encoded[name]) for name in encoded}
        special = self._special_by_index(columns["input_ids"], texts, settings)
        if special and self.literal:
            affected = [[column[index] for index in special] for column in texts]
            literal = self._encode_literally(affected, settings)
            for name, entries in columns.items():
                for index, entry in zip(special, literal[name], strict=True):
                    entries[index] = entry
        return Encoded(columns, special)

    def tokens(self, texts: Sequence[str]) -> Encoded:
        """Returns the encoded texts without the special tokens that the tokenizer adds to each."""
        if not texts:
            return Encoded({"input_ids": []}, {})
        return self.encode(texts, add_special_tokens=False, verbose=False)

    def templated(self, texts: Sequence[str], guarded: Sequence[bool]) -> list[list[int]]:
        """Returns the token ids of filled templates; special tokens of the template are parsed.

        `guarded` says which texts contain values that `guard` returned: these stay text. Raises
        DataError if the tokenizer cannot tell the two apart.
        """
        plain = [text for text, is_guarded in zip(texts, guarded, strict=True) if not is_guarded]
        renamed = [
            self._with_names(text)
            for text, is_guarded in zip(texts, guarded, strict=True)
            if is_guarded
        ]
        settings: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
        of_plain = iter(self.tokenizer(plain, **settings)["input_ids"] if plain else ())
        of_renamed = iter(self._renamed(renamed, **settings)["input_ids"] if renamed else ())
        return [list(next(of_renamed if is_guarded else of_plain)) for is_guarded in guarded]

    def remark(self, token: str, summary: Summary) -> None:
        """Counts a row that contains a special token in the summary of a data set."""
        setting = "data.special_tokens"
        remark = f"hold text such as {excerpt(token)}, which is special to the tokenizer, "
        if self.literal:
            remark += f"and was read as text; set {setting}: parsed if it is meant as the token"
        else:
            remark += f"and became the token; {setting}: literal reads it as text"
        summary.remark("special tokens", remark)

    def special_in(self, value: Any) -> str | None:
        """Returns the first special token that the texts of a value spell, or None."""
        if self._pattern is None:
            return None
        if isinstance(value, str):
            match = self._pattern.search(value)
            return None if match is None else match[0]
        if isinstance(value, dict):
            value = [*cast(dict[Any, Any], value), *cast(dict[Any, Any], value).values()]
        if isinstance(value, list | tuple):
            tokens = (self.special_in(item) for item in cast(Iterable[Any], value))
            return next((token for token in tokens if token is not None), None)
        return None

    def guard(self, value: Any) -> Any:
        """Returns a value of the data in the form in which `templated` keeps it as text."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self._pattern.sub(lambda match: _guarded(match[0]), value)
        if isinstance(value, dict):
            return {self.guard(k): self.guard(v) for k, v in cast(dict[Any, Any], value).items()}
        if isinstance(value, list | tuple):
            return [self.guard(item) for item in cast(Iterable[Any], value)]
        return value

    def _special_by_index(
        self, tokens: list[list[int]], texts: Sequence[Sequence[str]], settings: dict[str, Any]
    ) -> dict[int, str]:
        """Returns one special token for each text that has more of them than the tokenizer adds."""
        num_added = 0
        if settings.get("add_special_tokens", True):
            minimal = self.tokenizer(*("a" for _ in texts))["input_ids"]
            num_added = sum(map(self._ids.__contains__, minimal))
        special: dict[int, str] = {}
        for index, ids in enumerate(tokens):
            spells_unknown = self._unknown is not None and any(
                self._unknown in column[index] for column in texts
            )
            inside = [] if self._ids.keys().isdisjoint(ids) else list(filter(self._ids.get, ids))
            if spells_unknown or len(inside) > num_added:
                # A tokenizer also parses variants of the spelling, such as full-width characters.
                spelled = self.special_in([column[index] for column in texts])
                special[index] = spelled or self._ids[inside[len(inside) // 2]]
        return special

    def _encode_literally(self, texts: list[list[str]], settings: dict[str, Any]) -> Any:
        if self.tokenizer.is_fast:
            return self._renamed(*texts, return_attention_mask=False, **settings)
        return self.tokenizer(
            *texts, split_special_tokens=True, return_attention_mask=False, **settings
        )

    def _with_names(self, text: str) -> str:
        """Returns a filled template for the renamed tokenizer: its own special tokens get their
        substitute names, and guarded values their original text."""
        if not self.tokenizer.is_fast:
            kind = type(self.tokenizer).__name__
            raise DataError(
                f"a {kind} cannot tell special tokens in a text from those of the template",
                key="data.special_tokens",
                value="literal",
                hint="set data.special_tokens: parsed, or fix the row",
            )
        assert self._pattern is not None
        named = self._pattern.sub(lambda match: self._names[match[0]], text)
        return self._guards.sub(lambda match: match[0].replace(GUARD, "", 1), named)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        """The ids of the special tokens that text can spell.

        Left out are special tokens that are ordinary pieces too, such as an exclamation mark used
        for padding: text gives the same id.
        """
        added = self.tokenizer.added_tokens_decoder
        roles = {str(token) for token in self.tokenizer.all_special_tokens}
        return {
            str(token): index
            for index, token in added.items()
            if (token.special or str(token) in roles)
            and len(str(token)) > 1
            and not self._is_merged(str(token), index)
        }

    def _is_merged(self, token: str, index: int) -> bool:
        """Returns whether the merges of a BPE model also give this token."""
        from tokenizers.models import BPE

        model = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None)
        if not isinstance(model, BPE) or model.ignore_merges:
            return False
        return [piece.id for piece in model.tokenize(token)] == [index]

    @cached_property
    def _unknown(self) -> str | None:
        """The unknown token, whose id also results from texts that do not spell it."""
        model = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None)
        name = getattr(model, "unk_token", self.tokenizer.unk_token)  # None for bytes
        return name if name in self._tokens else None

    @cached_property
    def _ids(self) -> dict[int, str]:
        """Special tokens by id, without the unknown token."""
        return {index: name for name, index in self._tokens.items() if name != self._unknown}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return _any_of(self._tokens)

    @cached_property
    def _guards(self) -> re.Pattern[str]:
        return cast(re.Pattern[str], _any_of(map(_guarded, self._tokens)))

    @cached_property
    def _names(self) -> dict[str, str]:
        """The substitute name of each special token."""
        return {token: f"{NAME}{index}{NAME}" for token, index in self._tokens.items()}

    @cached_property
    def _renamed(self) -> Callable[..., Any]:
        """A copy of the tokenizer in which special tokens have substitute names and the same ids.

        Raises ConfigError if the tokenizer allows no such copy.
        """
        from tokenizers import Tokenizer

        renamed = copy.copy(self.tokenizer)
        values = json.loads(self.tokenizer.backend_tokenizer.to_str())
        _rename(values, self._names)
        try:
            backend = Tokenizer.from_str(json.dumps(values))
        except Exception as error:  # tokenizers raises plain Exceptions
            raise ConfigError(
                "data.special_tokens: literal is not possible with this tokenizer "
                f"({excerpt(error)})",
                key="data.special_tokens",
                value="literal",
                hint="use parsed",
            ) from error
        for token, index in self._tokens.items():
            if backend.token_to_id(self._names[token]) != index:
                raise ConfigError(
                    f"data.special_tokens: the tokenizer cannot tell the text {excerpt(token)} "
                    "from its special token",
                    key="data.special_tokens",
                    value="literal",
                    hint="use parsed",
                )
        renamed._tokenizer = backend
        return renamed


def _rename(values: dict[str, Any], names: dict[str, str]) -> None:
    """Renames tokens in the values of a tokenizer.json, its model's vocabulary included."""
    model = values["model"]
    for token in values["added_tokens"]:
        if token["content"] in names:
            token.update(content=names[token["content"]], normalized=False)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        pieces = cast(dict[str, int], vocabulary)
        model["vocab"] = {names.get(piece, piece): index for piece, index in pieces.items()}
    else:
        scored = cast(list[tuple[str, float]], vocabulary)
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in scored]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]


def _guarded(token: str) -> str:
    return f"{token[0]}{GUARD}{token[1:]}"


def _any_of(words: Iterable[str]) -> re.Pattern[str] | None:
    """Returns a pattern that matches any of the words, longer ones first; None without words."""
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
