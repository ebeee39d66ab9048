"""Answers that a model generates, greedily."""

from itertools import groupby
from typing import Any

import numpy as np
import torch

from trainer import config
from trainer.data.prepare import PreparedSplit
from trainer.tasks.prompts import boundaries

BATCH = 16


class Generator:
    """Generates the continuation of prompts, likeliest token by token."""

    def __init__(
        self, settings: config.Generation, tokenizer: Any, num_positions: int | None
    ) -> None:
        self.max_new_tokens = settings.max_new_tokens
        self.tokenizer = tokenizer
        self.num_positions = num_positions

    def generate(self, model: Any, prompts: list[np.ndarray]) -> list[str]:
        """Returns a text for each prompt; empty where the model has no position left for it.

        A text is what its prompt alone would give: prompts with less room have their own batches.
        """
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for room, group in groupby(order, key=lambda index: self._room(prompts[index])):
            alike = list(group) if room > 0 else []
            for start in range(0, len(alike), BATCH):
                batch = alike[start : start + BATCH]
                tokens = self._continued(model, [prompts[index] for index in batch], room)
                for index, one in zip(batch, tokens, strict=True):
                    texts[index] = self.decode(one)
        return texts

    def decode(self, tokens: Any) -> str:
        return self.tokenizer.decode(tokens, skip_special_tokens=True).strip()

    def _room(self, prompt: np.ndarray) -> int:
        if self.num_positions is None:
            return self.max_new_tokens
        return min(self.max_new_tokens, self.num_positions - len(prompt))

    @torch.no_grad()
    def _continued(self, model: Any, prompts: list[np.ndarray], room: int) -> list[list[int]]:
        width = max(len(prompt) for prompt in prompts)
        ids = np.full((len(prompts), width), self.tokenizer.pad_token_id, np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # at the right: the continuation follows it
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        device = next(model.parameters()).device
        _, end = boundaries(self.tokenizer)
        made = model.generate(
            input_ids=torch.from_numpy(ids).to(device),
            attention_mask=torch.from_numpy(mask).to(device),
            max_new_tokens=room,
            do_sample=False,
            use_cache=True,
            eos_token_id=end or None,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        return made[:, width:].tolist()


def first_answer(split: PreparedSplit, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the tokens before the first answer of an example, and those of the answer."""
    tokens, learned = split.ragged("input_ids")[index], split.ragged("learned")[index]
    begin = int(np.argmax(learned))
    ends = learned[begin:] == 0
    if "position_ids" in split.columns:  # the next example of a packed sequence
        ends |= split.ragged("position_ids")[index][begin:] == 0
    stop = begin + int(np.argmax(ends)) if ends.any() else len(tokens)
    return tokens[:begin], tokens[begin:stop]
