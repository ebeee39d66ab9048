"""Greedy generation of answers."""

from collections import abc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import numpy as np
import torch

from trainer.data.encoded import PreparedSplit, Ragged
from trainer.tasks.generation.prompts import boundaries
from trainer.tasks.generation.settings import GenerationSettings

UNFINISHED = "\ufffd"
"""What a tokenizer gives for the first bytes of a character."""
BATCH = 16
"""Prompts that a model reads at a time."""


class Generator:
    """Generates continuations of prompts, greedily: the most likely token at each step."""

    def __init__(
        self,
        settings: GenerationSettings,
        tokenizer: Any,
        num_positions: int | None,
        turn_end: Sequence[int] = (),
        *,
        own_tokenizer: bool = False,
    ) -> None:
        """Answers end at the tokenizer's end of a text, `turn_end`, or an end token of the model.

        `own_tokenizer` says whether the tokenizer is the model's. If not, only those end tokens of
        the model count that the tokenizer knows as added tokens.
        """
        self.max_new_tokens = settings.max_new_tokens
        self.tokenizer = tokenizer
        self.num_positions = num_positions
        self.ends = [*boundaries(tokenizer)[1], *turn_end]
        self.own_tokenizer = own_tokenizer
        known = tokenizer.added_tokens_decoder
        self.silent = {token for token in turn_end if token in known and not known[token].special}

    def generate(self, model: Any, prompts: list[np.ndarray]) -> list[str]:
        """Returns a text for each prompt, empty if the prompt fills all positions of the model.

        A text does not depend on the other prompts: a batch holds only prompts with equal room.
        """
        texts = [""] * len(prompts)
        order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
        for room, group in groupby(order, key=lambda index: self._room(prompts[index])):
            indices = list(group) if room > 0 else []
            for start in range(0, len(indices), BATCH):
                batch = indices[start : start + BATCH]
                answers = self._continued(model, [prompts[index] for index in batch], room)
                for index, tokens in zip(batch, answers, strict=True):
                    texts[index] = self.decode(tokens)
        return texts

    def stream(self, model: Any, prompt: np.ndarray, show: Callable[[str], None]) -> str:
        """Returns the text that `generate` returns for a prompt, and calls `show` with each of
        its pieces as soon as that is known; the pieces joined are the text."""
        answer = PartialAnswer(self, show)
        room = self._room(prompt)
        if room > 0:
            (tokens,) = self._continued(model, [prompt], room, answer)
            answer.finish(self.decode(tokens))
        return answer.text

    def decode(self, tokens: Any) -> str:
        """Returns tokens as text, without special tokens and ends of turns."""
        kept = [int(token) for token in tokens if int(token) not in self.silent]
        return self.tokenizer.decode(kept, skip_special_tokens=True).strip()

    def _room(self, prompt: np.ndarray) -> int:
        """Returns how many tokens can be generated after a prompt."""
        if self.num_positions is None:
            return self.max_new_tokens
        return min(self.max_new_tokens, self.num_positions - len(prompt))

    @torch.no_grad()
    def _continued(
        self,
        model: Any,
        prompts: list[np.ndarray],
        room: int,
        streamer: "PartialAnswer | None" = None,
    ) -> list[list[int]]:
        width = max(len(prompt) for prompt in prompts)
        ids = np.full((len(prompts), width), self.tokenizer.pad_token_id, np.int64)
        mask = np.zeros_like(ids)
        for row, prompt in enumerate(prompts):  # padded on the left, so the answers line up
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = 1
        device = next(model.parameters()).device
        ends = self.ends_of(model)
        with plain_generation(model):
            output = model.generate(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(mask).to(device),
                max_new_tokens=room,
                do_sample=False,
                use_cache=True,
                eos_token_id=ends or None,
                pad_token_id=self.tokenizer.pad_token_id,
                streamer=streamer,
            )
        return output[:, width:].tolist()

    def ends_of(self, model: Any) -> list[int]:
        """Returns the ids of the tokens at which answers end: the model's EOS ids, then the ends of
        the texts it is trained on.

        With another tokenizer than the model's own, an EOS id may be an ordinary word; then only
        those that the tokenizer knows as added tokens count.
        """
        configured = _base_model(model).generation_config.eos_token_id
        eos_ids = [configured] if isinstance(configured, int) else configured or []
        if not self.own_tokenizer:
            eos_ids = [index for index in eos_ids if index in self.tokenizer.added_tokens_decoder]
        return list(dict.fromkeys([*eos_ids, *self.ends]))


class PartialAnswer:
    """The text of one answer as far as it is known; transformers calls `put` with each token."""

    def __init__(self, generator: Generator, show: Callable[[str], None]) -> None:
        self.text = ""
        self._generator = generator
        self._show = show
        self._tokens: list[int] = []
        self._after_prompt = False

    def put(self, value: torch.Tensor) -> None:
        if not self._after_prompt:  # the first call is about the prompt
            self._after_prompt = True
            return
        self._tokens += value.flatten().tolist()
        text = self._generator.decode(self._tokens)
        if text.startswith(self.text) and not text.endswith(UNFINISHED):
            self.finish(text)

    def end(self) -> None:
        """Does nothing: the caller of transformers knows the whole text."""

    def finish(self, text: str) -> None:
        """Shows what `text` has beyond what it shares with the text that was shown."""
        pairs = enumerate(zip(self.text, text, strict=False))
        differing = (place for place, (shown, new) in pairs if shown != new)
        shared = next(differing, min(len(self.text), len(text)))
        if len(text) > shared:
            self._show(text[shared:])
        self.text = text


@contextmanager
def plain_generation(model: Any) -> abc.Generator[None]:
    """Context manager: replaces the generation settings that a model was published with.

    Its penalties or beams would change the greedy answers.
    """
    from transformers import GenerationConfig

    base = _base_model(model)
    own, base.generation_config = base.generation_config, GenerationConfig()
    try:
        yield
    finally:
        base.generation_config = own


def _base_model(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def examples(split: PreparedSplit) -> np.ndarray:
    """Returns the offset of each example in the tokens of a split, and the end of the last one.

    A packed sequence holds several examples.
    """
    offsets = split.ragged("input_ids").offsets
    if "position_ids" not in split.columns:
        return offsets
    return np.append(np.flatnonzero(split.ragged("position_ids").values == 0), offsets[-1])


def first_answers(
    split: PreparedSplit, ids: np.ndarray
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields id, tokens before the first answer, and tokens of that answer, for each example.

    `ids` count the `examples` of the split.
    """
    bounds = examples(split)
    tokens = Ragged(split.ragged("input_ids").values, bounds)
    learned = Ragged(split.ragged("learned").values, bounds)
    for index in ids.tolist():
        begin = int(np.argmax(learned[index]))
        ends = learned[index][begin:] == 0
        stop = begin + int(np.argmax(ends)) if ends.any() else len(learned[index])
        yield index, tokens[index][:begin], tokens[index][begin:stop]
