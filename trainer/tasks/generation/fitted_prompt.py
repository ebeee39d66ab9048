"""A prompt that fits into a model: its texts are cut to the positions that the model has."""

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
"""Fields in the order in which they are cut."""


class ScoredPrompt(NamedTuple):
    """The tokens of a prompt and an answer after it."""

    tokens: np.ndarray
    start: int
    """Position of the first token of the answer."""


class FittedPrompt:
    """A template with room for what follows it: one of the `answers`, or generated tokens."""

    def __init__(
        self,
        template: str,
        *,
        tokenizer: TextTokenizer,
        model_config: Any,
        answers: Sequence[str] = ("",),
        max_new_tokens: int = 0,
    ) -> None:
        """Raises ConfigError if the model cannot continue a prompt, or has too few positions."""
        if not is_decoder(model_config):
            raise ConfigError(
                f"task.zero_shot: a {model_config.model_type} is not a causal language model and "
                f"cannot continue a prompt",
                key="task.zero_shot",
                value=model_config.model_type,
                hint="set task.zero_shot: null",
            )
        fields = template_fields("prompt", template)
        self.template = template
        self.fields = [field for field in CUT_FIRST if field in fields]
        self.tokenizer = tokenizer
        self.answers = answers
        self.max_new_tokens = max_new_tokens
        self.num_positions = num_positions(model_config)
        empty = dict.fromkeys(self.fields, "")
        if not self._fits(empty):
            raise ConfigError(
                f"task.zero_shot.prompt: without any text, prompt and answer have "
                f"{self._length(empty)} tokens, and the model has {self.num_positions} positions",
                key="task.zero_shot.prompt",
                value=template,
                hint="shorten it",
            )

    def cut(self, texts: dict[str, str]) -> tuple[dict[str, str], bool]:
        """Returns the texts by field, cut at their ends until they fit, and whether any was cut."""
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

    def with_answers(self, texts: dict[str, str]) -> list[ScoredPrompt]:
        """Returns the prompt followed by each of the answers.

        A tokenizer may merge the end of the prompt with the answer. An answer therefore starts at
        the first token in which prompt and answer differ from the prompt alone.
        """
        alone, *continued = self._encode(texts, ["", *self.answers])
        prompts: list[ScoredPrompt] = []
        for tokens in continued:
            pairs = enumerate(zip(alone, tokens, strict=False))
            differing = (position for position, (left, right) in pairs if left != right)
            start = max(next(differing, len(alone)), 1)  # nothing predicts the first token
            prompts.append(ScoredPrompt(np.array(tokens, np.int32), start))
        return prompts

    def _room(self, texts: dict[str, str], field: str) -> int:
        """Returns how many characters of a field fit next to the other texts."""
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
        """Returns the tokens of the prompt followed by each answer.

        Only the texts are guarded: the template and the answers are the recipe's.
        """
        guarded = self.tokenizer.literal and self.tokenizer.special_in(texts) is not None
        prompt = self.template.format_map(self.tokenizer.guard(texts) if guarded else texts)
        begin, _ = boundaries(self.tokenizer.tokenizer)
        encoded = self.tokenizer.templated(
            [prompt + answer for answer in answers], [guarded] * len(answers)
        )
        return [[*begin, *ids] for ids in encoded]
