"""Saving: every rank writes its shards, and the main process publishes the complete checkpoint."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from trainer.checkpoints.disk_space import CheckpointSize
from trainer.checkpoints.record import RECORD, Fingerprint, fingerprint, write_record
from trainer.checkpoints.shards import ShardWriter
from trainer.checkpoints.store import CheckpointStore
from trainer.distributed.collectives import gather_on_main, on_main
from trainer.engines.loss_scale import loss_scale
from trainer.engines.portable_state import Parameters, full_moments, full_weights
from trainer.errors import DivergedError
from trainer.recipe.training import Checkpoint
from trainer.state import TrainState

BYTES_PER_SECOND = 100e6
"""Speed of a slow disk, for an estimate of how long the first checkpoint takes."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written."""

    state: TrainState
    writer: ShardWriter
    started: float


class Saver:
    """Saves checkpoints, one at a time, either while training waits or in the background."""

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
        """`facts` describe the run in every record. `metrics` summarises metrics.jsonl for a
        record; it is called on the main process only."""
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
        """Seconds to leave for saving before a time limit: one and a half times the longest save.

        In the background it is one save more, because one may have just begun. Before the first
        save, its length is estimated.
        """
        save = self._expected if self._longest is None else self._longest
        return (2.5 if self._in_background else 1.5) * save

    @property
    def busy(self) -> bool:
        """Whether this rank is still writing."""
        return self._pending is not None and self._pending.writer.busy

    def save(self, state: TrainState, *, ends_epoch: bool) -> None:
        """Writes a checkpoint and publishes it; in the background, only begins to write it.

        Collective: every rank calls it. Raises CheckpointError on every rank if any cannot write;
        earlier checkpoints are not affected.
        """
        self.finish()
        started = time.monotonic()
        folder = on_main(self._accelerator, lambda: self._stage(state, ends_epoch))
        rank, num_ranks = self._accelerator.process_index, self._accelerator.num_processes
        writer = ShardWriter(folder, rank, num_ranks, self._in_background)
        self._pending = _Pending(state, writer, started)
        writer.write("model", full_weights(self._objective, self._parameters))
        moments = full_moments(self._objective, self._optimizer, self._parameters)
        writer.write("optimizer", moments)
        if not self._in_background:
            self.finish()

    def finish(self) -> None:
        """Publishes the checkpoint that is being written, if any, once all ranks have written it.

        Collective: every rank calls it. Raises CheckpointError on every rank if any could not
        write.
        """
        pending = self._pending
        if pending is None:
            return
        files, error = pending.writer.result()
        self._pending = None
        published = time.monotonic()
        written = gather_on_main(self._accelerator, (files, None if error is None else str(error)))
        on_main(self._accelerator, lambda: self._publish(pending, written))
        writing = pending.writer.last_written - pending.started
        self._longest = max(self._longest or 0.0, writing + time.monotonic() - published)

    @contextmanager
    def closing(self) -> Generator[None]:
        """Context manager: ends a pending checkpoint if the body raises.

        After a DivergedError, which every rank raises, it is published; after any other error it is
        abandoned, because other ranks may still be training.
        """
        try:
            yield
        except DivergedError:
            self.finish()
            raise
        except BaseException:
            if self._pending is not None:
                self._pending.writer.abandon()
            raise

    def _stage(self, state: TrainState, ends_epoch: bool) -> Path:
        """Returns a staging folder that holds the record of the checkpoint."""
        with self._store.writing(state.step):
            folder = self._store.stage(state.step)
            write_record(
                folder,
                state=state,
                ends_epoch=ends_epoch,
                loss_scale=loss_scale(self._objective, self._scaler),
                metrics=self._metrics(),
                facts=self._facts,
            )
        return folder

    def _publish(
        self, pending: _Pending, written: list[tuple[dict[str, Fingerprint], str | None]]
    ) -> None:
        """Publishes a checkpoint. `written` holds, for each rank, the fingerprints of its files and
        the reason if it failed."""
        step, folder = pending.state.step, pending.writer.folder
        with self._store.writing(step):
            for _, problem in written:
                if problem is not None:
                    raise OSError(problem)
            shards = {name: sums for files, _ in written for name, sums in files.items()}
            self._store.publish(folder, step, {**shards, RECORD: fingerprint(folder / RECORD)})
            self._store.prune(self._settings, pending.state.best_step)
