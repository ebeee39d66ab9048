"""Batches: examples of different lengths as tensors of one shape."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from trainer.data.encoded import Ragged


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch of one process."""

    inputs: dict[str, Tensor]
    """Arguments of the model, [batch, seq]; without attention_mask if nothing is padded."""
    targets: dict[str, Tensor]
    counts: Tensor
    """Target count of each loss term, float64 [num_terms]; their sum over the whole step is the
    denominator."""

    def to(self, device: torch.device) -> Self:
        """Returns the batch on a device."""

        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

        return replace(
            self,
            inputs=move(self.inputs),
            targets=move(self.targets),
            counts=self.counts.to(device, non_blocking=True),
        )

    def as_dummy(self) -> Self:
        """Returns a batch that takes part in the forward pass and counts nothing."""
        return replace(self, counts=torch.zeros_like(self.counts))


def pad(column: Ragged, ids: np.ndarray, value: int) -> Tensor:
    """Returns the entries `ids` of a column as int64 [batch, seq], padded on the right with
    `value`."""
    starts = column.offsets[ids]
    lengths = column.offsets[ids + 1] - starts
    positions = np.arange(lengths.max())
    inside = positions < lengths[:, None]
    padded = column.values[np.where(inside, starts[:, None] + positions, starts[:, None])]
    return torch.from_numpy(np.where(inside, padded, value).astype(np.int64))


def stack(entries: Sequence[np.ndarray], value: int) -> Tensor:
    """Returns sequences of different lengths as int64 [batch, seq], padded on the right with
    `value`."""
    width = max(len(entry) for entry in entries)
    stacked = np.full((len(entries), width), value, np.int64)
    for row, entry in enumerate(entries):
        stacked[row, : len(entry)] = entry
    return torch.from_numpy(stacked)


def attention_mask(lengths: np.ndarray) -> dict[str, Tensor]:
    """Returns the mask of a padded batch as a model's argument; empty if nothing is padded."""
    if lengths.min() == lengths.max():
        return {}
    positions = torch.arange(int(lengths.max()))
    return {"attention_mask": (positions < torch.from_numpy(lengths)[:, None]).long()}


def full_inputs(size: int, length: int, *, padded: bool, types: bool = False) -> dict[str, Tensor]:
    """Returns arbitrary tokens as a model's arguments, int64 [size, length].

    If `padded` and there are several examples, all but the first lack their last token. `types`
    says whether the model also gets token_type_ids.
    """
    inputs = {"input_ids": torch.zeros(size, length, dtype=torch.int64)}
    if padded and size > 1:
        inputs["attention_mask"] = torch.ones(size, length, dtype=torch.int64)
        inputs["attention_mask"][1:, -1] = 0
    if types:
        inputs["token_type_ids"] = torch.zeros(size, length, dtype=torch.int64)
    return inputs


def has_types(model_config: Any) -> bool:
    """Returns whether a model distinguishes the texts of a pair by token_type_ids."""
    return getattr(model_config, "type_vocab_size", 0) > 1
