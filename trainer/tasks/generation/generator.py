"""Answers that a model generates, greedily."""

from collections import abc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import torch

from trainer.data.encoded import PreparedSplit, Ragged
from trainer.tasks.generation.prompts import boundaries
from trainer.tasks.generation.settings import GenerationSettings

BATCH = 16


class Generator:
    """Generates the continuation of prompts, likeliest token by token."""

    def __init__(
        self,
        settings: GenerationSettings,
        tokenizer: Any,
        num_positions: int | None,
        turn_end: Sequence[int] = (),
        *,
        own_tokenizer: bool = False,
    ) -> None:
        """`turn_end` ends an answer as well as the tokenizer's end of a text does.

        So do the model's ends, all of them where it has its `own_tokenizer`.
        """
        self.max_new_tokens = settings.max_new_tokens
        self.tokenizer = tokenizer
        self.num_positions = num_positions
        self.ends = [*boundaries(tokenizer)[1], *turn_end]
        self.own_tokenizer = own_tokenizer
        known = tokenizer.added_tokens_decoder
        self.silent = {token for token in turn_end if token in known and not known[token].special}

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
        """Returns a text without special tokens and ends of turns."""
        kept = [int(token) for token in tokens if int(token) not in self.silent]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()

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
        ends = self.ends_of(model)
        with _plain_generation(model):
            made = model.generate(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(mask).to(device),
                max_new_tokens=room,
                do_sample=False,
                use_cache=True,
                eos_token_id=ends or None,
                pad_token_id=self.tokenizer.pad_token_id,
            )
        return made[:, width:].tolist()

    def ends_of(self, model: Any) -> list[int]:
        """Returns the tokens at which a model's answers end: its own, and those of the texts.

        Its own may be words of another tokenizer; then only special ones count.
        """
        own = _whole(model).generation_config.eos_token_id
        given = [own] if isinstance(own, int) else own or []
        if not self.own_tokenizer:
            given = [index for index in given if index in self.tokenizer.added_tokens_decoder]
        return list(dict.fromkeys([*given, *self.ends]))


@contextmanager
def _plain_generation(model: Any) -> abc.Generator[None]:
    """Leaves out the settings with which a model was published.

    A penalty or several beams would make other texts than the likeliest token by token.
    """
    from transformers import GenerationConfig

    whole = _whole(model)
    own, whole.generation_config = whole.generation_config, GenerationConfig()
    try:
        yield
    finally:
        whole.generation_config = own


def _whole(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def examples(split: PreparedSplit) -> np.ndarray:
    """Returns where each example begins in the tokens of a split, and where the last one ends.

    A packed sequence holds several, the longest of them first.
    """
    offsets = split.ragged("input_ids").offsets
    if "position_ids" not in split.columns:
        return offsets
    return np.append(np.flatnonzero(split.ragged("position_ids").values == 0), offsets[-1])


def first_answers(
    split: PreparedSplit, ids: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Returns id, tokens before the first answer and tokens of the answer, of some `examples`."""
    bounds = examples(split)
    tokens, learned = (Ragged(split.ragged(n).values, bounds) for n in ("input_ids", "learned"))
    for index in ids.tolist():
        begin = int(np.argmax(learned[index]))
        ends = learned[index][begin:] == 0
        stop = begin + int(np.argmax(ends)) if ends.any() else len(learned[index])
        yield index, tokens[index][:begin], tokens[index][begin:stop]
