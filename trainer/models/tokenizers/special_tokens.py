"""Special tokens in data: text such as </s> or [MASK] stays text, or becomes the token."""

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
"""Stands after the first character of what looks like a special token in data; no text has it."""
NAME = "\U0010fffd"
"""Around the name of a special token that only templates can write."""


@dataclass(frozen=True)
class Encoded:
    columns: dict[str, list[Any]]
    """input_ids and what else was asked for, an entry for each text."""
    special: dict[int, str]
    """A special token in each text, by its index, that holds one or more."""


class TextTokenizer:
    """Turns texts of data into tokens; what looks like a special token in them is text if
    `special_tokens` is literal, and the token if it is parsed.

    Libraries parse it, and `split_special_tokens` does not prevent that for all of them: a unigram
    model has </s> among its pieces. Here texts that hold one go to a copy of the tokenizer in which
    special tokens have names that no text has. All other texts never meet that copy.
    """

    def __init__(self, tokenizer: Any, special_tokens: SpecialTokens = "literal") -> None:
        self.tokenizer = tokenizer
        self.literal = special_tokens == "literal"

    def encode(self, *texts: Sequence[str], **settings: Any) -> Encoded:
        """Returns the tokens of texts, or of pairs of texts, as the tokenizer's call gives them."""
        encoded = self.tokenizer(*map(list, texts), return_attention_mask=False, **settings)
        columns = {name: list(encoded[name]) for name in encoded}
        special = self._special_in(columns["input_ids"], texts, settings)
        if special and self.literal:
            again = self._split([[one[index] for index in special] for one in texts], settings)
            for name, entries in columns.items():
                for index, entry in zip(special, again[name], strict=True):
                    entries[index] = entry
        return Encoded(columns, special)

    def tokens(self, texts: Sequence[str]) -> Encoded:
        """Returns the tokens of each text by itself, without those that stand around a text."""
        if not texts:
            return Encoded({"input_ids": []}, {})
        return self.encode(texts, add_special_tokens=False, verbose=False)

    def templated(self, texts: Sequence[str], guarded: Sequence[bool]) -> list[list[int]]:
        """Returns the tokens of filled templates, whose own special tokens are special.

        The values of those that are `guarded` have gone through `guard`.
        """
        plain = [text for text, one in zip(texts, guarded, strict=True) if not one]
        spelled = [self._spell(text) for text, one in zip(texts, guarded, strict=True) if one]
        settings: dict[str, Any] = {"add_special_tokens": False, "verbose": False}
        made = iter(self.tokenizer(plain, **settings)["input_ids"] if plain else ())
        named = iter(self._named(spelled, **settings)["input_ids"] if spelled else ())
        return [list(next(named if one else made)) for one in guarded]

    def remark(self, token: str, summary: Summary) -> None:
        """Counts a row that holds a special token."""
        setting = "data.special_tokens"
        what = f"hold text such as {excerpt(token)}, which is special to the tokenizer, "
        if self.literal:
            what += f"and was read as text; set {setting}: parsed if it is meant as the token"
        else:
            what += f"and became the token; {setting}: literal reads it as text"
        summary.remark("special tokens", what)

    def special_in(self, value: Any) -> str | None:
        """Returns a special token that stands in the texts of a value, None without one."""
        if self._pattern is None:
            return None
        if isinstance(value, str):
            found = self._pattern.search(value)
            return None if found is None else found[0]
        if isinstance(value, dict):
            value = [*cast(dict[Any, Any], value), *cast(dict[Any, Any], value).values()]
        if isinstance(value, list | tuple):
            found = (self.special_in(one) for one in cast(Iterable[Any], value))
            return next((one for one in found if one is not None), None)
        return None

    def guard(self, value: Any) -> Any:
        """Returns a value of data for use in a template; `templated` takes its texts as text."""
        if self._pattern is None:
            return value
        if isinstance(value, str):
            return self._pattern.sub(lambda found: _guarded(found[0]), value)
        if isinstance(value, dict):
            return {self.guard(k): self.guard(v) for k, v in cast(dict[Any, Any], value).items()}
        if isinstance(value, list | tuple):
            return [self.guard(one) for one in cast(Iterable[Any], value)]
        return value

    def _special_in(
        self, tokens: list[list[int]], texts: Sequence[Sequence[str]], settings: dict[str, Any]
    ) -> dict[int, str]:
        """Returns a special token of each text that has more of them than stand around a text."""
        around = 0
        if settings.get("add_special_tokens", True):
            empty = self.tokenizer(*("a" for _ in texts))["input_ids"]
            around = sum(map(self._ids.__contains__, empty))
        found: dict[int, str] = {}
        for index, ids in enumerate(tokens):
            unknown = self._unknown is not None and any(
                self._unknown in one[index] for one in texts
            )
            inside = [] if self._ids.keys().isdisjoint(ids) else list(filter(self._ids.get, ids))
            if unknown or len(inside) > around:
                # The tokenizer may also take other text for one, such as full-width characters.
                named = self.special_in([one[index] for one in texts])
                found[index] = named or self._ids[inside[len(inside) // 2]]
        return found

    def _split(self, texts: list[list[str]], settings: dict[str, Any]) -> Any:
        if self.tokenizer.is_fast:
            return self._named(*texts, return_attention_mask=False, **settings)
        return self.tokenizer(
            *texts, split_special_tokens=True, return_attention_mask=False, **settings
        )

    def _spell(self, text: str) -> str:
        """Returns a filled template as the copy reads it: only its own special tokens are named."""
        if not self.tokenizer.is_fast:
            raise DataError(
                f"a {type(self.tokenizer).__name__} cannot keep special tokens in a text apart "
                f"from those of the template; set data.special_tokens: parsed, or fix the row"
            )
        assert self._pattern is not None
        named = self._pattern.sub(lambda found: self._names[found[0]], text)
        return self._guards.sub(lambda found: found[0].replace(GUARD, "", 1), named)

    @cached_property
    def _tokens(self) -> dict[str, int]:
        """Special tokens that text can spell, with their ids.

        One that is also an ordinary piece, such as an exclamation mark that serves as padding, is
        none: as text it has the same id.
        """
        known = self.tokenizer.added_tokens_decoder
        roles = {str(token) for token in self.tokenizer.all_special_tokens}
        return {
            str(token): index
            for index, token in known.items()
            if (token.special or str(token) in roles)
            and len(str(token)) > 1
            and not self._is_merged(str(token), index)
        }

    def _is_merged(self, token: str, index: int) -> bool:
        from tokenizers.models import BPE

        model = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None)
        if not isinstance(model, BPE) or model.ignore_merges:
            return False
        return [piece.id for piece in model.tokenize(token)] == [index]

    @cached_property
    def _unknown(self) -> str | None:
        """The token of what is not in the vocabulary, which also texts without it give."""
        model = getattr(getattr(self.tokenizer, "backend_tokenizer", None), "model", None)
        name = getattr(model, "unk_token", self.tokenizer.unk_token)  # None for bytes
        return name if name in self._tokens else None

    @cached_property
    def _ids(self) -> dict[int, str]:
        """Special tokens by id, without that of what is unknown."""
        return {index: name for name, index in self._tokens.items() if name != self._unknown}

    @cached_property
    def _pattern(self) -> re.Pattern[str] | None:
        return _any_of(self._tokens)

    @cached_property
    def _guards(self) -> re.Pattern[str]:
        return cast(re.Pattern[str], _any_of(map(_guarded, self._tokens)))

    @cached_property
    def _names(self) -> dict[str, str]:
        return {token: f"{NAME}{index}{NAME}" for token, index in self._tokens.items()}

    @cached_property
    def _named(self) -> Callable[..., Any]:
        """A copy of the tokenizer in which special tokens have other names; their ids stay."""
        from tokenizers import Tokenizer

        named = copy.copy(self.tokenizer)
        values = json.loads(self.tokenizer.backend_tokenizer.to_str())
        _rename(values, self._names)
        try:
            backend = Tokenizer.from_str(json.dumps(values))
        except Exception as error:  # the library raises no other kind
            raise ConfigError(
                "data.special_tokens: literal is not possible with this tokenizer "
                f"({excerpt(error)})",
                key="data.special_tokens",
                hint="use parsed",
            ) from error
        for token, index in self._tokens.items():
            if backend.token_to_id(self._names[token]) != index:
                raise ConfigError(
                    f"data.special_tokens: the tokenizer cannot tell the text {excerpt(token)} "
                    "from its special token",
                    key="data.special_tokens",
                    hint="use parsed",
                )
        named._tokenizer = backend
        return named


def _rename(values: dict[str, Any], names: dict[str, str]) -> None:
    """Renames tokens in a tokenizer.json, in the vocabulary of its model, too."""
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
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
