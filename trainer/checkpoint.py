"""Checkpoints: staged, verified, published by one rename; what is half written never counts."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from trainer.engine import Moments, Parameters, set_full_moments, set_full_weights
from trainer.errors import CheckpointError
from trainer.loss_scale import set_loss_scale
from trainer.state import TrainState

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run: folders step-00000120, complete whenever they exist."""

    folder: Path

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, oldest first."""
        names = [path.name for path in self.folder.glob("step-*")]
        return sorted(int(name[5:]) for name in names if re.fullmatch(r"step-\d{8}", name))

    def publish(self, step: int, write: Callable[[Path], None]) -> Path:
        """Returns the checkpoint of `step`, which `write` fills in a staging folder first.

        Raises CheckpointError where it cannot be written; earlier checkpoints stay as they are.
        """
        target, staging = self.path(step), self.folder / f".staging-{step:08d}"
        try:
            self.clean()
            staging.mkdir(parents=True)
            write(staging)
            sums = {file.name: _fingerprint(file) for file in sorted(staging.iterdir())}
            (staging / MANIFEST).write_text(json.dumps(sums, indent=2))
            for file in (*staging.iterdir(), staging):
                _flush(file)
            if target.exists():
                shutil.rmtree(target)
            staging.rename(target)
            _flush(self.folder)
        except (OSError, SafetensorError) as error:
            shutil.rmtree(staging, ignore_errors=True)
            kept = self.steps()
            resumed = f"resumes from step {kept[-1]}" if kept else "starts anew"
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to {self.folder} ({error}); free "
                f"space there and run the same command, which {resumed}"
            ) from error
        return target

    def clean(self) -> None:
        """Removes what a run that died has left staged."""
        for path in self.folder.glob(".staging-*"):
            shutil.rmtree(path)

    def newest(self) -> tuple[Path | None, list[str]]:
        """Returns the newest checkpoint that verifies, and why newer ones were passed over."""
        passed_over: list[str] = []
        for step in reversed(self.steps()):
            try:
                verify(self.path(step))
            except CheckpointError as error:
                passed_over.append(str(error))
            else:
                return self.path(step), passed_over
        return None, passed_over

    def set_aside_after(self, checkpoint: Path | None) -> None:
        """Renames checkpoints newer than `checkpoint`, which did not verify, to damaged-step-….

        They would count among the last that are kept, in place of sound ones.
        """
        for step in self.steps():
            if checkpoint is not None and self.path(step).name > checkpoint.name:
                target = self.folder / f"damaged-{self.path(step).name}"
                shutil.rmtree(target, ignore_errors=True)
                self.path(step).rename(target)

    def prune(self, *, keep_last: int, spared: Collection[int | None]) -> None:
        """Removes all but the newest `keep_last` checkpoints and those of the steps `spared`."""
        for step in self.steps()[:-keep_last]:
            if step not in spared:
                # Renamed first: a run that dies here leaves nothing that looks like a checkpoint.
                leaving = self.path(step).rename(self.folder / f".staging-pruned-{step:08d}")
                shutil.rmtree(leaving)


def verify(checkpoint: Path) -> None:
    """Raises CheckpointError unless each file has the size and the checksum of the manifest."""
    try:
        sums = json.loads((checkpoint / MANIFEST).read_text())
        wrong = [name for name, sum_ in sums.items() if _fingerprint(checkpoint / name) != sum_]
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{checkpoint} is no complete checkpoint: {error}") from error
    if wrong:
        raise CheckpointError(f"{checkpoint} was changed after it was written: {', '.join(wrong)}")


def write_checkpoint(
    folder: Path,
    *,
    weights: dict[str, Tensor],
    moments: Mapping[str, Moments],
    state: TrainState,
    loss_scale: Mapping[str, float] | None,
    order_digest: str,
    launch: Mapping[str, Any],
) -> None:
    """Writes what learns, by name, and the numbers; frozen weights are not written again."""
    save_file(weights, folder / "model.safetensors")
    entries = {
        f"{name}|{entry}": value for name, kept in moments.items() for entry, value in kept.items()
    }
    save_file(entries, folder / "optimizer.safetensors")
    record = {
        "state": state.as_dict(),
        "order_digest": order_digest,
        "launch": dict(launch),
        "loss_scale": loss_scale,
    }
    (folder / "state.json").write_text(json.dumps(record, indent=2))


def load_weights(checkpoint: Path, objective: nn.Module, parameters: Parameters) -> None:
    """Puts the weights of a checkpoint into the parameters of the same names, on every rank.

    Raises CheckpointError where it has other names.
    """
    saved = load_file(checkpoint / "model.safetensors")
    if saved.keys() != parameters.keys():
        other = sorted(saved.keys() ^ parameters.keys())[0]
        raise CheckpointError(f"{checkpoint} is of another model: {other} is only in one of them")
    set_full_weights(objective, parameters, saved)


def load_checkpoint(
    checkpoint: Path,
    *,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    parameters: Parameters,
    scaler: Any,
    order_digest: str,
) -> TrainState:
    """Returns the state of a verified checkpoint, with weights and moments put back in place.

    Raises CheckpointError where the training examples are others than those it was written with.
    """
    record = read_record(checkpoint)
    if record["order_digest"] != order_digest:
        raise CheckpointError(
            f"the training data changed since {checkpoint} was written; give the run the same data "
            f"or another --run-dir"
        )
    load_weights(checkpoint, objective, parameters)
    moments: dict[str, Moments] = {name: {} for name in parameters}
    for key, tensor in load_file(checkpoint / "optimizer.safetensors").items():
        name, _, entry = key.rpartition("|")
        moments[name][entry] = tensor
    set_full_moments(objective, optimizer, parameters, moments)
    if record.get("loss_scale") is not None:
        set_loss_scale(objective, scaler, record["loss_scale"])
    return TrainState(**record["state"])


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Returns the numbers of a checkpoint."""
    return json.loads((checkpoint / "state.json").read_text())


def _fingerprint(file: Path) -> dict[str, Any]:
    with file.open("rb") as opened:
        return {
            "bytes": file.stat().st_size,
            "sha256": hashlib.file_digest(opened, "sha256").hexdigest(),
        }


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
