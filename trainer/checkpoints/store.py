"""The checkpoints of a run: staged, verified, published by one rename, pruned."""

import os
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from safetensors import SafetensorError

from trainer.checkpoints.record import (
    Fingerprint,
    read_manifest,
    read_record,
    verify,
    write_manifest,
)
from trainer.errors import CheckpointError
from trainer.files.durable import flush
from trainer.files.file_errors import remedy
from trainer.files.plain import reason, remove
from trainer.recipe.training import Checkpoint
from trainer.wording import excerpt


@dataclass(frozen=True)
class CheckpointStore:
    """The checkpoints of one run: folders such as step-00000120, complete whenever they exist."""

    folder: Path

    def path(self, step: int) -> Path:
        """Returns the folder of the checkpoint of a step, whether or not it exists."""
        return self.folder / f"step-{step:08d}"

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint, in ascending order.

        Raises CheckpointError if the folder cannot be read: with an empty list the run would start
        from scratch.
        """
        names = (re.fullmatch(r"step-([0-9]{8})", path.name) for path in self._entries())
        return sorted(int(name[1]) for name in names if name is not None)

    def newest(self, *, resumable: bool = True) -> tuple[Path | None, list[str]]:
        """Returns the newest checkpoint that verifies, and why each newer one does not.

        With `resumable`, checkpoints that hold weights only are also passed over.
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

    @contextmanager
    def writing(self, step: int) -> Generator[None]:
        """Context manager: turns an error in writing the checkpoint of `step` into CheckpointError.

        The message says from which step a later command resumes. Incomplete files are removed.
        """
        try:
            yield
        except (OSError, SafetensorError) as error:
            self.recover()
            steps = self.steps()
            resumed = f"resumes from step {steps[-1]}" if steps else "starts from the beginning"
            raise CheckpointError(
                f"the checkpoint of step {step} cannot be written to "
                f"{excerpt(self.folder, 150)} ({excerpt(error, 120)}): "
                f"{remedy(error, self.folder)}",
                key=str(self.folder),
                value=step,
                hint=f"a later command {resumed}",
            ) from error

    def stage(self, step: int) -> Path:
        """Returns a new hidden folder for the files of a checkpoint, which `publish` renames."""
        self.recover()
        staging = self._hidden("staging", step)
        staging.mkdir(parents=True)
        return staging

    def publish(self, staging: Path, step: int, files: Mapping[str, Fingerprint]) -> Path:
        """Writes the manifest of a staged checkpoint, gives it its name, and returns its folder.

        Raises OSError if that fails, or if a file does not have the size that its rank wrote.
        """
        for name, expected in files.items():
            if (staging / name).stat().st_size != expected["bytes"]:
                raise OSError(f"{name} is not as it was written")
        target = self.path(step)
        write_manifest(staging, files, resumable=True)
        flush(staging)
        if os.path.lexists(target):
            # If the run dies before the next line, `recover` renames it back.
            target.rename(self._hidden("replaced", step))
        staging.rename(target)
        flush(self.folder)
        self.recover()
        return target

    def recover(self) -> None:
        """Restores a checkpoint that a dead run was replacing, and removes other remains of it.

        What cannot be removed now, such as a file that another machine has open, is removed by a
        later call.
        """
        self.check_own()
        for path in self._entries():
            if name := re.fullmatch(r"\.replaced-([0-9]{8})-.+", path.name):
                target = self.path(int(name[1]))
                with suppress(CheckpointError):
                    if not os.path.lexists(target):
                        verify(path)
                        path.rename(target)
        for path in self._entries():
            if path.name.startswith((".staging-", ".replaced-", ".pruned-")):
                with suppress(OSError):
                    remove(path)

    def prune(self, settings: Checkpoint, best_step: int | None) -> None:
        """Removes all checkpoints but the last ones, the best and, if kept, those at ends of
        epochs.

        Kept checkpoints that are not among the last lose their moments: these are most of a
        checkpoint, and a run resumes from a newer one.
        """
        self.check_own()
        kept = {best_step} if settings.keep_best else set[int | None]()
        if settings.every_epoch:
            kept |= {step for step in self.steps() if self._may_end_epoch(step)}
        for step in self.steps()[: -settings.keep_last]:
            if step in kept:
                with suppress(CheckpointError):  # a damaged checkpoint is reported on reading
                    _keep_weights_only(self.path(step))
            else:
                # Renamed first: if the run dies here, the rest does not look like a checkpoint.
                pruned = self.path(step).rename(self._hidden("pruned", step))
                with suppress(OSError):
                    remove(pruned)

    def set_aside_after(self, checkpoint: Path | None) -> None:
        """Renames the checkpoints newer than `checkpoint`, none of which verified, to
        damaged-step-….

        Otherwise `prune` would count them among the last and remove sound ones.
        """
        self.check_own()
        for step in self.steps():
            if checkpoint is not None and self.path(step).name > checkpoint.name:
                target = self.folder / f"damaged-{self.path(step).name}"
                remove(target)
                self.path(step).rename(target)

    def check_own(self) -> None:
        """Raises CheckpointError if the folder is a link: the checkpoints may be another run's."""
        if self.folder.is_symlink():
            raise CheckpointError(
                f"{self.folder} is a link to {self.folder.readlink()}, and a run changes nothing "
                f"outside its directory",
                key=str(self.folder),
                value=str(self.folder.readlink()),
                hint="move the folder it points to here, or link the whole run directory",
            )

    def _may_end_epoch(self, step: int) -> bool:
        try:
            return read_record(self.path(step))["ends_epoch"]
        except CheckpointError:
            return True  # an unreadable record is no reason to remove weights

    def _entries(self) -> list[Path]:
        try:
            return sorted(self.folder.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}, the folder of the run's checkpoints, cannot be read "
                f"({reason(error)})",
                key=str(self.folder),
                hint="make the folder readable, or choose another --run-dir",
            ) from error

    def _hidden(self, kind: str, step: int) -> Path:
        """Returns a new name each time: other machines may cache what an earlier one held."""
        return self.folder / f".{kind}-{step:08d}-{uuid4().hex[:8]}"


def _keep_weights_only(checkpoint: Path) -> None:
    """Removes the moments, after the manifest: at any time all files that it lists exist.

    A link is left alone, because its moments belong to another run.
    """
    if checkpoint.is_symlink():
        return
    manifest = read_manifest(checkpoint)
    if manifest["resumable"]:
        files = manifest["files"].items()
        kept = {name: file for name, file in files if not name.startswith("optimizer-")}
        write_manifest(checkpoint, kept, resumable=False)
        flush(checkpoint)
    for file in checkpoint.glob("optimizer-*"):
        file.unlink()
