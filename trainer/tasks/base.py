"""What a task gives the loop: loss sums and target counts, and what to measure."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.prepare import PreparedSplit, Ragged

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class LossTerm:
    name: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch of one process."""

    inputs: dict[str, Tensor]
    """Arguments of the model, [batch, seq]; no attention_mask where nothing is padded."""
    targets: dict[str, Tensor]
    counts: Tensor
    """What each loss sum is divided by once all of a step are added up, float64 [num_terms]."""

    def to(self, device: torch.device) -> Self:
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


class Task(Protocol):
    """A way to turn rows into loss and metrics; it knows nothing of ranks or engines."""

    @property
    def auto_model(self) -> str:
        """Returns the name of the transformers class that builds its models."""
        ...

    @property
    def loss_terms(self) -> tuple[LossTerm, ...]: ...

    num_statistics: int
    metrics_offered: tuple[str, ...]
    """Names of numbers in `metrics` that can decide which step is best."""
    scales: dict[str, str]
    """Range of each metric that has one."""

    @property
    def column_names(self) -> dict[str, str | None]:
        """Returns the columns of the source that it reads, by their key under data.columns."""
        ...

    def config_values(self) -> dict[str, Any]:
        """Returns what the model's configuration must hold, such as num_labels."""
        ...

    def encoding_settings(self) -> dict[str, Any]:
        """Returns what changes the encoded rows, beside the rows and the tokenizer."""
        ...

    def encode(
        self, rows: "Dataset", tokenizer: Any
    ) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """Returns columns with an entry for each row, `input_ids` among them, and counted facts."""
        ...

    def collate(self, split: PreparedSplit, ids: np.ndarray, pad_token_id: int) -> Batch:
        """Returns the examples `ids` of a prepared split as one padded batch."""
        ...

    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the sum of each loss term, fp32 [num_terms], and the model's outputs."""
        ...

    def statistics(self, outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """Returns float64 [num_statistics] that add up over batches and ranks to `metrics`."""
        ...

    def metrics(self, statistics: np.ndarray) -> dict[str, Any]:
        """Returns the metrics of a whole split from the sum of its statistics."""
        ...

    def predictions(self, outputs: Tensor, targets: dict[str, Tensor]) -> list[dict[str, Any]]:
        """Returns one short record for each example of a batch."""
        ...


class Objective(nn.Module):
    """A model with its task's loss inside forward, so that an engine sees every weight it reads."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    def forward(
        self, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Returns the sum of each loss term, fp32 [num_terms], and the model's outputs."""
        return self.task.loss_sums(self.model, inputs, targets)


def pad(column: Ragged, ids: np.ndarray, value: int) -> Tensor:
    """Returns entries `ids` of a column as int64 [batch, seq], filled up with `value`."""
    starts = column.offsets[ids]
    lengths = column.offsets[ids + 1] - starts
    positions = np.arange(lengths.max())
    inside = positions < lengths[:, None]
    padded = column.values[np.where(inside, starts[:, None] + positions, starts[:, None])]
    return torch.from_numpy(np.where(inside, padded, value).astype(np.int64))
