"""A prompt that fits into a model: of its texts as much as there are positions for."""

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from trainer.errors import ConfigError
from trainer.models.decoder import is_decoder
from trainer.models.positions import num_positions
from trainer.models.tokenizers.special_tokens import TextTokenizer
from trainer.tasks.generation.prompts import boundaries
from trainer.tasks.generation.templates import template_fields

CUT_FIRST = ("context", "text", "text_pair", "question")
"""Fields, in the order in which they are given up."""


class ScoredPrompt(NamedTuple):
    """The tokens of a prompt with an answer after it."""

    tokens: np.ndarray
    start: int
    """Position of the first token of the answer."""


class FittedPrompt:
    """A template; what follows it is one of some answers, or a number of generated tokens."""

    def __init__(
        self,
        template: str,
        *,
        tokenizer: TextTokenizer,
        model_config: Any,
        answers: Sequence[str] = ("",),
        max_new_tokens: int = 0,
    ) -> None:
        """Raises ConfigError for a model that continues no prompt, or has no position for it."""
        if not is_decoder(model_config):
            raise ConfigError(
                f"task.zero_shot: a {model_config.model_type} is not a causal language model and "
                f"cannot continue a prompt",
                key="task.zero_shot",
                value=model_config.model_type,
                hint="set task.zero_shot: null",
            )
        named = template_fields("prompt", template)
        self.template = template
        self.fields = [field for field in CUT_FIRST if field in named]
        self.tokenizer = tokenizer
        self.answers = answers
        self.max_new_tokens = max_new_tokens
        self.num_positions = num_positions(model_config)
        empty = dict.fromkeys(self.fields, "")
        if not self._fits(empty):
            raise ConfigError(
                f"task.zero_shot.prompt: with its answer it has {self._length(empty)} tokens "
                f"before any text, and the model {self.num_positions} positions",
                key="task.zero_shot.prompt",
                value=template,
                hint="shorten it",
            )

    def cut(self, texts: dict[str, str]) -> tuple[dict[str, str], bool]:
        """Returns the texts by field, cut at their end until all fits, and whether any was."""
        if self._fits(texts):
            return texts, False
        for field in self.fields:
            texts = {**texts, field: texts[field][: self._room(texts, field)]}
            if texts[field]:
                break
        return texts, True

    def tokens(self, texts: dict[str, str]) -> np.ndarray:
        """Returns the tokens of the prompt, int32."""
        return np.array(self._encode(texts, [""])[0], np.int32)

    def asked(self, texts: dict[str, str]) -> list[ScoredPrompt]:
        """Returns the prompt with each of the answers.

        A tokenizer may join the end of a prompt with an answer, or begin each text with a space:
        those tokens are the answer's from which on both together differ from the prompt.
        """
        alone, *together = self._encode(texts, ["", *self.answers])
        made: list[ScoredPrompt] = []
        for tokens in together:
            pairs = enumerate(zip(alone, tokens, strict=False))
            start = next((place for place, (one, other) in pairs if one != other), len(alone))
            made.append(
                ScoredPrompt(np.array(tokens, np.int32), max(start, 1))
            )  # nothing predicts the 0th
        return made

    def _room(self, texts: dict[str, str], field: str) -> int:
        """Returns how many characters of a field fit beside the other texts, 0 where none does."""
        text = texts[field]
        too_long = bisect_left(
            range(len(text)), True, key=lambda size: not self._fits({**texts, field: text[:size]})
        )
        return max(too_long - 1, 0)

    def _fits(self, texts: dict[str, str]) -> bool:
        return self.num_positions is None or self._length(texts) <= self.num_positions

    def _length(self, texts: dict[str, str]) -> int:
        return max(map(len, self._encode(texts, self.answers))) + self.max_new_tokens

    def _encode(self, texts: dict[str, str], answers: Sequence[str]) -> list[list[int]]:
        """Returns the tokens of the prompt with each of the answers, which are the recipe's."""
        guarded = self.tokenizer.literal and self.tokenizer.special_in(texts) is not None
        prompt = self.template.format_map(self.tokenizer.guard(texts) if guarded else texts)
        begin, _ = boundaries(self.tokenizer.tokenizer)
        encoded = self.tokenizer.templated(
            [prompt + answer for answer in answers], [guarded] * len(answers)
        )
        return [[*begin, *ids] for ids in encoded]
