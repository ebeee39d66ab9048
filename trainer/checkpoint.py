"""Checkpoints: staged, verified, published by one rename; what is half written never counts."""

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from safetensors import SafetensorError
from torch import nn

from trainer import config
from trainer.engine import Parameters, set_full_moments, set_full_weights
from trainer.errors import CheckpointError
from trainer.flushing import flush
from trainer.loss_scale import set_loss_scale
from trainer.shards import Fingerprint, SavedTensors, fingerprint
from trainer.state import TrainState

MANIFEST, RECORD = "manifest.json", "state.json"


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
        _write_manifest(staging, {"resumable": True, "files": dict(files)})
        flush(staging)
        if target.exists():
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
        for path in self.folder.glob(".replaced-*"):
            target = self.path(int(path.name.split("-")[1]))
            with suppress(CheckpointError):
                if not target.exists():
                    verify(path)
                    path.rename(target)
        for kind in ("staging", "replaced", "pruned"):
            for path in self.folder.glob(f".{kind}-*"):
                shutil.rmtree(path, ignore_errors=True)

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
        for step in self.steps():
            if checkpoint is not None and self.path(step).name > checkpoint.name:
                target = self.folder / f"damaged-{self.path(step).name}"
                remove(target)
                self.path(step).rename(target)

    def prune(self, settings: config.Checkpoint, best_step: int | None) -> None:
        """Removes all but the last checkpoints, the best and, where settings say so, epochs' ends.

        Of these two, older ones keep their weights only: what an optimizer remembers is mostly
        larger, and a run goes on from a newer one.
        """
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
                shutil.rmtree(leaving, ignore_errors=True)

    def _may_end_epoch(self, step: int) -> bool:
        try:
            return read_record(self.path(step))["ends_epoch"]
        except (OSError, ValueError):
            return True  # what cannot be read is not removed for it

    def _hidden(self, kind: str, step: int) -> Path:
        """Returns a name that was never used: other machines may remember where an old one led."""
        return self.folder / f".{kind}-{step:08d}-{uuid4().hex[:8]}"


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Returns what a checkpoint says of itself: `files` with fingerprints, and `resumable`.

    Raises CheckpointError where it says nothing.
    """
    try:
        manifest = json.loads((checkpoint / MANIFEST).read_text())
        if "resumable" not in manifest:
            raise CheckpointError(f"{checkpoint} was written by an older version, in another form")
        return {"resumable": bool(manifest["resumable"]), "files": dict(manifest["files"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint} is no complete checkpoint: {error}") from error


def verify(checkpoint: Path, *, resumable: bool = False) -> None:
    """Raises CheckpointError unless each file has the size and the checksum of the manifest.

    With `resumable`, also where it holds weights only.
    """
    manifest = read_manifest(checkpoint)
    try:
        files = manifest["files"].items()
        wrong = [name for name, expected in files if fingerprint(checkpoint / name) != expected]
    except OSError as error:
        raise CheckpointError(f"{checkpoint} is no complete checkpoint: {error}") from error
    if wrong:
        raise CheckpointError(f"{checkpoint} was changed after it was written: {', '.join(wrong)}")
    if resumable and not manifest["resumable"]:
        raise CheckpointError(
            f"{checkpoint} holds weights only, for moments are kept of the last ones; no run goes "
            f"on from it"
        )


def write_record(
    folder: Path,
    *,
    state: TrainState,
    loss_scale: Mapping[str, float] | None,
    order_digest: str,
    launch: Mapping[str, Any],
    ends_epoch: bool,
) -> None:
    """Writes the numbers of a checkpoint."""
    record = {
        "state": state.as_dict(),
        "order_digest": order_digest,
        "launch": dict(launch),
        "loss_scale": loss_scale,
        "ends_epoch": ends_epoch,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=2))
    flush(folder / RECORD)


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Returns the numbers of a checkpoint."""
    return json.loads((checkpoint / RECORD).read_text())


def load_weights(checkpoint: Path, objective: nn.Module, parameters: Parameters) -> None:
    """Puts the weights of a checkpoint into the parameters of the same names, on every rank.

    Raises CheckpointError where it has other names.
    """
    saved = _saved(checkpoint, "model")
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
    set_full_moments(objective, optimizer, parameters, _saved(checkpoint, "optimizer"))
    if record.get("loss_scale") is not None:
        set_loss_scale(objective, scaler, record["loss_scale"])
    return TrainState(**record["state"])


def _saved(checkpoint: Path, kind: str) -> SavedTensors:
    """Returns the tensors of the files that the manifest lists."""
    names = [name for name in read_manifest(checkpoint)["files"] if name.startswith(f"{kind}-")]
    try:
        return SavedTensors(checkpoint / name for name in sorted(names))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{checkpoint} cannot be read: {error}") from error


def _keep_weights_only(checkpoint: Path) -> None:
    """Removes moments; whenever a run dies in it, what is left agrees with the manifest."""
    manifest = read_manifest(checkpoint)
    if manifest["resumable"]:
        files = manifest["files"].items()
        kept = {name: file for name, file in files if not name.startswith("optimizer-")}
        _write_manifest(checkpoint, {"resumable": False, "files": kept})
        flush(checkpoint)
    for file in checkpoint.glob("optimizer-*"):
        file.unlink()


def _write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    staging = folder / f".{MANIFEST}.staging"
    staging.write_text(json.dumps(manifest, indent=2))
    flush(staging)
    staging.replace(folder / MANIFEST)


def remove(path: Path) -> None:
    """Removes a folder, or whatever else lies in its place."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
