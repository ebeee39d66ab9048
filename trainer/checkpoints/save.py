"""Saves a run: every rank writes its files, and the main process publishes what is complete."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError
from torch import nn

from trainer.checkpoints.disk_space import CheckpointSize
from trainer.checkpoints.record import RECORD, write_record
from trainer.checkpoints.shards import Fingerprint, ShardWriter, fingerprint
from trainer.checkpoints.store import CheckpointStore
from trainer.distributed.collectives import on_main
from trainer.engines.loss_scale import loss_scale
from trainer.engines.portable_state import Parameters, full_moments, full_weights
from trainer.errors import CheckpointError, DivergedError
from trainer.files.file_errors import remedy
from trainer.recipe.schema import Checkpoint
from trainer.state import TrainState
from trainer.wording import excerpt

Result = TypeVar("Result")

BYTES_PER_SECOND = 100e6
"""Of a slow disk, to guess how long the first save takes."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written."""

    state: TrainState
    writer: ShardWriter
    started: float


class Saver:
    """Saves checkpoints one after the other: while training waits, or in the background."""

    def __init__(
        self,
        accelerator: Accelerator,
        store: CheckpointStore,
        size: CheckpointSize,
        *,
        settings: Checkpoint,
        objective: nn.Module,
        optimizer: torch.optim.Optimizer,
        parameters: Parameters,
        scaler: Any,
        facts: Mapping[str, Any],
        metrics: Callable[[], dict[str, Any]],
    ) -> None:
        """`facts` go into every record as they are; `metrics` gives what is to be remembered of
        metrics.jsonl, and is called on the main process only."""
        self._accelerator = accelerator
        self._store = store
        self._settings = settings
        self._objective = objective
        self._optimizer = optimizer
        self._parameters = parameters
        self._scaler = scaler
        self._facts = facts
        self._metrics = metrics
        self._in_background = settings.in_background
        self._pending: _Pending | None = None
        self._longest: float | None = None
        self._expected = size.total / BYTES_PER_SECOND / accelerator.num_processes

    @property
    def reserve(self) -> float:
        """Seconds that a stop has to leave for saving: those of the longest save so far, at first a
        guess, and half as many; in the background one may have just begun."""
        save = self._expected if self._longest is None else self._longest
        return (2.5 if self._in_background else 1.5) * save

    def save(self, state: TrainState, *, ends_epoch: bool) -> None:
        """Begins a checkpoint, and publishes it unless it is written in the background.

        Every rank calls it. Raises CheckpointError, on every rank, where one cannot write; earlier
        checkpoints stay as they are.
        """
        self.finish()
        started, accelerator = time.monotonic(), self._accelerator

        def stage() -> Path:
            folder = self._store.stage(state.step)
            write_record(
                folder,
                state=state,
                loss_scale=loss_scale(self._objective, self._scaler),
                ends_epoch=ends_epoch,
                metrics=self._metrics(),
                **self._facts,
            )
            return folder

        folder = on_main(accelerator, self._told(state.step, stage))
        writer = ShardWriter(
            folder, accelerator.process_index, accelerator.num_processes, self._in_background
        )
        self._pending = _Pending(state, writer, started)
        writer.write("model", full_weights(self._objective, self._parameters))
        moments = full_moments(self._objective, self._optimizer, self._parameters)
        writer.write("optimizer", moments)
        if not self._in_background:
            self.finish()

    @property
    def busy(self) -> bool:
        """Whether this rank is still writing."""
        return self._pending is not None and self._pending.writer.busy

    def finish(self) -> None:
        """Waits for all ranks, publishes what they wrote and removes what is kept no longer."""
        pending = self._pending
        if pending is None:
            return
        written, error = pending.writer.result()
        self._pending = None
        published = time.monotonic()
        reported: list[tuple[dict[str, Fingerprint], str | None]] = gather_object(
            [(written, None if error is None else str(error))]
        )

        def publish() -> None:
            for _, problem in reported:
                if problem is not None:
                    raise OSError(problem)
            files = {name: sums for shards, _ in reported for name, sums in shards.items()}
            step = pending.state.step
            files[RECORD] = fingerprint(pending.writer.folder / RECORD)
            self._store.publish(pending.writer.folder, step, files)
            self._store.prune(self._settings, pending.state.best_step)

        on_main(self._accelerator, self._told(pending.state.step, publish))
        writing = pending.writer.last_written - pending.started
        self._longest = max(self._longest or 0.0, writing + time.monotonic() - published)

    @contextmanager
    def closing(self) -> Generator[None]:
        """Publishes what is being written where all ranks diverge, else lets it go on errors."""
        try:
            yield
        except DivergedError:
            self.finish()
            raise
        except BaseException:
            if self._pending is not None:
                self._pending.writer.abandon()
            raise

    def _told(self, step: int, work: Callable[[], Result]) -> Callable[[], Result]:
        """Returns work whose failure to write is a CheckpointError that says how to go on."""

        def told() -> Result:
            try:
                return work()
            except (OSError, SafetensorError) as error:
                self._store.recover()
                kept = self._store.steps()
                resumed = f"resumes from step {kept[-1]}" if kept else "starts anew"
                raise CheckpointError(
                    f"the checkpoint of step {step} cannot be written to "
                    f"{excerpt(self._store.folder, 150)} ({excerpt(error, 120)}): "
                    f"{remedy(error, self._store.folder)}; a later command {resumed}"
                ) from error

        return told
