"""Checkpoints: staged, verified, published by one rename; what is half written never counts."""

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from torch import nn

from trainer.checkpoints.record import MANIFEST as MANIFEST
from trainer.checkpoints.record import RECORD as RECORD
from trainer.checkpoints.record import read_manifest, read_record, verify, write_manifest
from trainer.checkpoints.record import write_record as write_record
from trainer.checkpoints.saved_tensors import check_moments, check_weights
from trainer.checkpoints.shards import Fingerprint, SavedTensors
from trainer.engines.loss_scale import set_loss_scale
from trainer.engines.portable_state import Parameters, set_full_moments, set_full_weights
from trainer.errors import CheckpointError
from trainer.files.durable import flush
from trainer.files.plain import reason, remove
from trainer.recipe import schema
from trainer.state import TrainState
from trainer.wording import excerpt


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run: folders step-00000120, complete whenever they exist."""

    folder: Path

    def path(self, step: int) -> Path:
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, oldest first.

        Raises CheckpointError where the folder cannot be read: none would mean to start anew.
        """
        found = (re.fullmatch(r"step-([0-9]{8})", path.name) for path in self._entries())
        return sorted(int(one[1]) for one in found if one is not None)

    def check_own(self) -> None:
        """Raises CheckpointError where the folder is a link: it would be another run's."""
        if self.folder.is_symlink():
            raise CheckpointError(
                f"{self.folder} is a link to {self.folder.readlink()}, and nothing is changed "
                f"there; put what it leads to in its place, or link the whole run directory"
            )

    def stage(self, step: int) -> Path:
        """Returns a new folder for the files of a checkpoint, which `publish` gives its name."""
        self.recover()
        staging = self._hidden("staging", step)
        staging.mkdir(parents=True)
        return staging

    def publish(self, staging: Path, step: int, files: Mapping[str, Fingerprint]) -> Path:
        """Returns the checkpoint of `step`, complete under its name from one moment to the next.

        Raises OSError where it cannot be written, or a file is not there as its rank wrote it.
        """
        for name, expected in files.items():
            if (staging / name).stat().st_size != expected["bytes"]:
                raise OSError(f"{name} is not as it was written")
        target = self.path(step)
        write_manifest(staging, {"resumable": True, "files": dict(files)})
        flush(staging)
        if os.path.lexists(target):
            # A run that dies before the next line gets it back.
            target.rename(self._hidden("replaced", step))
        staging.rename(target)
        flush(self.folder)
        self.recover()
        return target

    def recover(self) -> None:
        """Takes back what a run that died was about to replace, and removes what else it has left.

        What cannot be removed now, for somebody reads it over a network, is removed another time.
        """
        self.check_own()
        for path in self._entries():
            if found := re.fullmatch(r"\.replaced-([0-9]{8})-.+", path.name):
                target = self.path(int(found[1]))
                with suppress(CheckpointError):
                    if not os.path.lexists(target):
                        verify(path)
                        path.rename(target)
        for path in self._entries():
            if path.name.startswith((".staging-", ".replaced-", ".pruned-")):
                with suppress(OSError):
                    remove(path)

    def newest(self, *, resumable: bool = True) -> tuple[Path | None, list[str]]:
        """Returns the newest checkpoint that verifies, and why newer ones do not.

        With `resumable`, one that a run can go on from.
        """
        passed_over: list[str] = []
        for step in reversed(self.steps()):
            try:
                verify(self.path(step), resumable=resumable)
            except CheckpointError as error:
                passed_over.append(str(error))
            else:
                return self.path(step), passed_over
        return None, passed_over

    def set_aside_after(self, checkpoint: Path | None) -> None:
        """Renames checkpoints newer than `checkpoint`, which did not verify, to damaged-step-….

        They would count among the last that are kept, in place of sound ones.
        """
        self.check_own()
        for step in self.steps():
            if checkpoint is not None and self.path(step).name > checkpoint.name:
                target = self.folder / f"damaged-{self.path(step).name}"
                remove(target)
                self.path(step).rename(target)

    def prune(self, settings: schema.Checkpoint, best_step: int | None) -> None:
        """Removes all but the last checkpoints, the best and, where settings say so, epochs' ends.

        Of these two, older ones keep their weights only: what an optimizer remembers is mostly
        larger, and a run goes on from a newer one.
        """
        self.check_own()
        spared = {best_step} if settings.keep_best else set[int | None]()
        if settings.every_epoch:
            spared |= {step for step in self.steps() if self._may_end_epoch(step)}
        for step in self.steps()[: -settings.keep_last]:
            if step in spared:
                with suppress(CheckpointError):  # whoever reads a damaged one is told
                    _keep_weights_only(self.path(step))
            else:
                # Renamed first: a run that dies here leaves nothing that looks like a checkpoint.
                leaving = self.path(step).rename(self._hidden("pruned", step))
                with suppress(OSError):
                    remove(leaving)

    def _may_end_epoch(self, step: int) -> bool:
        try:
            return read_record(self.path(step))["ends_epoch"]
        except CheckpointError:
            return True  # what cannot be read is not removed for it

    def _entries(self) -> list[Path]:
        try:
            return sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(
                f"{self.folder} cannot be read ({reason(error)}): the checkpoints of the run "
                f"should lie in this folder; make it readable, or choose another --run-dir"
            ) from error

    def _hidden(self, kind: str, step: int) -> Path:
        """Returns a name that was never used: other machines may remember where an old one led."""
        return self.folder / f".{kind}-{step:08d}-{uuid4().hex[:8]}"


def load_weights(checkpoint: Path, objective: nn.Module, parameters: Parameters) -> None:
    """Puts the weights of a checkpoint into the parameters of the same names, on every rank.

    Raises CheckpointError where it has other names, shapes or types.
    """
    with _reading(checkpoint):
        saved = _saved(checkpoint, "model")
        check_weights(checkpoint, saved, parameters)
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

    Raises CheckpointError where the training examples are others than those it was written with, or
    tensors are not those that model and optimizer need.
    """
    record = read_record(checkpoint)
    check_order(checkpoint, record, order_digest)
    state = TrainState.of(record["state"])
    with _reading(checkpoint):
        weights, moments = _saved(checkpoint, "model"), _saved(checkpoint, "optimizer")
        check_weights(checkpoint, weights, parameters)
        check_moments(
            checkpoint, moments, weights, objective, optimizer, parameters, step=state.step
        )
        set_full_weights(objective, parameters, weights)
        set_full_moments(objective, optimizer, parameters, moments)
    if record.get("loss_scale") is not None:
        set_loss_scale(objective, scaler, record["loss_scale"])
    return state


def check_order(checkpoint: Path, record: Mapping[str, Any], order_digest: str) -> None:
    """Raises CheckpointError where other training examples, or in another order, were learned."""
    if record["order_digest"] != order_digest:
        raise CheckpointError(
            f"the training data changed since {checkpoint} was written; give the run the same data "
            f"or another --run-dir"
        )


def _saved(checkpoint: Path, kind: str) -> SavedTensors:
    """Returns the tensors of the files that the manifest lists."""
    names = [name for name in read_manifest(checkpoint)["files"] if name.startswith(f"{kind}-")]
    return SavedTensors(checkpoint / name for name in sorted(names))


@contextmanager
def _reading(checkpoint: Path) -> Generator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {excerpt(error, 200)}") from error


def _keep_weights_only(checkpoint: Path) -> None:
    """Removes moments; whenever a run dies in it, what is left agrees with the manifest.

    A link is left as it is, for the moments are those of another run.
    """
    if checkpoint.is_symlink():
        return
    manifest = read_manifest(checkpoint)
    if manifest["resumable"]:
        files = manifest["files"].items()
        kept = {name: file for name, file in files if not name.startswith("optimizer-")}
        write_manifest(checkpoint, {"resumable": False, "files": kept})
        flush(checkpoint)
    for file in checkpoint.glob("optimizer-*"):
        file.unlink()
