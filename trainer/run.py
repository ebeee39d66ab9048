"""Run: the record of everything that training, evaluation and reports need."""

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
from trainer.engines.topology import Topology
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
    """Everything that training, evaluation and reports need; functions take it, it has no methods.

    The record itself never changes. Training changes the weights, the optimizer, and the services
    at the end.
    """

    # What to train, and where.
    recipe: Recipe
    directory: Path
    precision: Precision
    micro_batch_size: int
    topology: Topology
    launch_facts: dict[str, Any]
    """What the launch decides and may differ when a run resumes; the log reports changes."""

    # The data, and the order of its examples.
    task: Task
    tokenizer: Any
    splits: dict[str, PreparedSplit]
    order: DataOrder
    order_digest: str
    """Two runs share it only if every step has the same examples of the same rows."""
    num_steps: int
    """Optimizer steps of the whole run."""
    term_weights: Tensor
    """Weight of each loss term, float64 [num_terms]."""

    # The model, and which of its weights learn.
    model: nn.Module
    """The tuned model, without the task's loss and the engine's wrapping."""
    base: Base
    """What it takes to load the untuned model again; the card of an adapter says it."""
    num_positions: int | None
    """Longest sequence that the model can read, in tokens; None if it has no such limit."""
    parameters: dict[str, nn.Parameter]
    """The trainable parameters by their names in `model`."""
    parameter_counts: ParameterCounts
    baseline_kind: Baseline
    """What the baseline measures; that of an untrained head only shows chance."""

    # The engine.
    objective: nn.Module
    """The model with the task's loss, wrapped by the engine."""
    optimizer: torch.optim.Optimizer
    """The optimizer, wrapped by the engine."""

    # Services, which have state of their own.
    store: CheckpointStore
    checkpoint_size: CheckpointSize
    saver: Saver
    stop: StopRequest
    tracker: Tracker
    rank_times: RankTimes

    notes: tuple[str, ...]
    """What a reader of the results should know about data and model, a sentence each."""
