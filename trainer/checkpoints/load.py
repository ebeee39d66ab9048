"""Loading a checkpoint: its weights alone, or everything that a run needs to resume."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from trainer.checkpoints.record import read_manifest, read_record
from trainer.checkpoints.saved_tensors import SavedTensors, check_moments, check_weights
from trainer.engines.loss_scale import set_loss_scale
from trainer.engines.portable_state import Parameters, set_full_moments, set_full_weights
from trainer.errors import CheckpointError
from trainer.recipe.training import Optimizer
from trainer.state import TrainState
from trainer.wording import excerpt


def load_weights(checkpoint: Path, objective: nn.Module, parameters: Parameters) -> None:
    """Loads the weights of a checkpoint into the parameters of the same names, on every rank.

    Raises CheckpointError if their names, shapes or types differ.
    """
    with _reading(checkpoint):
        weights = _tensors(checkpoint, "model")
        check_weights(checkpoint, weights, parameters)
        set_full_weights(objective, parameters, weights)


def load_checkpoint(
    checkpoint: Path,
    *,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: Optimizer,
    parameters: Parameters,
    scaler: Any,
    order_digest: str,
) -> TrainState:
    """Loads weights, moments and loss scale of a verified checkpoint, and returns its state.

    `settings` are those from which `optimizer` was built. Raises CheckpointError if the checkpoint
    was made with other training examples, or if its tensors do not fit the model or the optimizer.
    """
    record = read_record(checkpoint)
    check_order(checkpoint, record, order_digest)
    state = TrainState.of(record["state"])
    with _reading(checkpoint):
        weights, moments = _tensors(checkpoint, "model"), _tensors(checkpoint, "optimizer")
        check_weights(checkpoint, weights, parameters)
        check_moments(
            checkpoint, moments, weights, objective, settings, parameters, step=state.step
        )
        set_full_weights(objective, parameters, weights)
        set_full_moments(objective, optimizer, parameters, moments)
    if record["loss_scale"] is not None:
        set_loss_scale(objective, scaler, record["loss_scale"])
    return state


def check_order(checkpoint: Path, record: Mapping[str, Any], order_digest: str) -> None:
    """Raises CheckpointError unless the checkpoint's run took the same examples in the same
    order."""
    if record["order_digest"] != order_digest:
        raise CheckpointError(
            f"the training data changed since {checkpoint} was written",
            key=str(checkpoint),
            hint="give the run the same data or another --run-dir",
        )


def _tensors(checkpoint: Path, kind: str) -> SavedTensors:
    """Returns the tensors in the files of a kind, "model" or "optimizer", that the manifest
    lists."""
    names = [name for name in read_manifest(checkpoint)["files"] if name.startswith(f"{kind}-")]
    return SavedTensors(checkpoint / name for name in sorted(names))


@contextmanager
def _reading(checkpoint: Path) -> Generator[None]:
    """Context manager: turns an error in reading into a CheckpointError."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{checkpoint} cannot be read: {excerpt(error, 200)}", key=str(checkpoint)
        ) from error
