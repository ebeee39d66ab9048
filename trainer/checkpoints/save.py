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
"""Speed of a slow disk, for a guess at how long the first checkpoint takes."""


@dataclass(frozen=True)
class _Pending:
    """A checkpoint that is being written."""

    state: TrainState
    writer: ShardWriter
    started: float


class Saver:
    """Saves one checkpoint after the other, either while training waits or in the background."""

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
        """`facts` describe the run in every record. `metrics` returns what a record remembers of
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
        """Seconds to leave for saving before a time limit: one and a half times the longest save.

        In the background one more, which may have just begun. Before the first save it is a guess.
        """
        save = self._expected if self._longest is None else self._longest
        return (2.5 if self._in_background else 1.5) * save

    @property
    def busy(self) -> bool:
        """Whether this rank still writes."""
        return self._pending is not None and self._pending.writer.busy

    def save(self, state: TrainState, *, ends_epoch: bool) -> None:
        """Writes a checkpoint and publishes it; in the background, only begins to write it.

        Every rank calls it. Raises CheckpointError on every rank if one cannot write. Earlier
        checkpoints stay as they are.
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

        Every rank calls it. Raises CheckpointError on every rank if one could not write.
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
        """Ends what is being written if the body raises.

        DivergedError is raised on every rank, so the pending checkpoint can be published; after any
        other error it is abandoned.
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
        """Returns a staged checkpoint that holds its record."""
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
        """Publishes what the ranks have `written`: fingerprints by file, and what failed."""
        step, folder = pending.state.step, pending.writer.folder
        with self._store.writing(step):
            for _, problem in written:
                if problem is not None:
                    raise OSError(problem)
            shards = {name: sums for files, _ in written for name, sums in files.items()}
            self._store.publish(folder, step, {**shards, RECORD: fingerprint(folder / RECORD)})
            self._store.prune(self._settings, pending.state.best_step)
