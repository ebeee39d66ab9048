"""Run: the frozen record of what training and evaluation need."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainer.checkpoints.disk_space import CheckpointSize
from trainer.checkpoints.save import Saver
from trainer.checkpoints.store import CheckpointStore
from trainer.data.encoded import PreparedSplit
from trainer.engines.precision import Precision
from trainer.models.load import Base
from trainer.models.parameters import ParameterCounts
from trainer.order import DataOrder
from trainer.process.stop_request import StopRequest
from trainer.recipe.schema import Recipe
from trainer.tasks.base import Task
from trainer.tracking.rank_times import RankTimes
from trainer.tracking.tracker import Tracker

Baseline = Literal["pretrained", "untrained head", "random weights"]


@dataclass(frozen=True, kw_only=True)
class Run:
    """Everything that training and evaluation need; nothing of it changes but the weights."""

    recipe: Recipe
    directory: Path
    task: Task
    tokenizer: Any
    base: Base
    num_positions: int | None
    """Which the model has, where it counts them."""
    splits: dict[str, PreparedSplit]
    order: DataOrder
    order_digest: str
    """Equal only for the same steps on the same rows."""
    model: nn.Module
    """The tuned model, without task or engine around it."""
    objective: nn.Module
    """The model with its loss, as the engine wrapped it."""
    optimizer: torch.optim.Optimizer
    parameters: dict[str, nn.Parameter]
    """What learns, by name."""
    counts: ParameterCounts
    baseline_is: Baseline
    """What is measured before the first step; figures of an untrained head say nothing."""
    term_weights: Tensor
    """Weight of each loss term, float64 [num_terms]."""
    micro_batch_size: int
    num_steps: int
    precision: Precision
    launch: dict[str, Any]
    """What may change between the parts of a run, which then say so."""
    store: CheckpointStore
    checkpoint_size: CheckpointSize
    saver: Saver
    stop: StopRequest
    tracker: Tracker
    rank_times: RankTimes
    scaler: Any
    notes: tuple[str, ...]
    """What a reader of the results should know of data and model."""
