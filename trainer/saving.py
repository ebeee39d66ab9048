"""Saves a run: every rank writes its files, and the main process publishes what is complete."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object
from safetensors import SafetensorError

from trainer.checkpoint import RECORD, CheckpointStore, write_record
from trainer.disk_space import CheckpointSize
from trainer.engine import full_moments, full_weights
from trainer.errors import CheckpointError, DivergedError, excerpt
from trainer.file_errors import remedy
from trainer.loss_scale import loss_scale
from trainer.provenance import made_with
from trainer.ranks import on_main
from trainer.shards import Fingerprint, ShardWriter, fingerprint
from trainer.state import TrainState

if TYPE_CHECKING:
    from trainer.run import Run

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
        in_background: bool,
    ) -> None:
        self._accelerator = accelerator
        self._store = store
        self._in_background = in_background
        self._pending: _Pending | None = None
        self._longest: float | None = None
        self._expected = size.total / BYTES_PER_SECOND / accelerator.num_processes

    @property
    def reserve(self) -> float:
        """Seconds that a stop has to leave for saving: those of the longest save so far, at first a
        guess, and half as many; in the background one may have just begun."""
        save = self._expected if self._longest is None else self._longest
        return (2.5 if self._in_background else 1.5) * save

    def save(self, run: "Run", state: TrainState) -> None:
        """Begins a checkpoint, and publishes it unless it is written in the background.

        Every rank calls it. Raises CheckpointError, on every rank, where one cannot write; earlier
        checkpoints stay as they are.
        """
        self.finish(run)
        started, accelerator = time.monotonic(), self._accelerator

        def stage() -> Path:
            folder = self._store.stage(state.step)
            write_record(
                folder,
                state=state,
                loss_scale=loss_scale(run.objective, run.scaler),
                order_digest=run.order_digest,
                launch=run.launch,
                ends_epoch=state.step % run.order.steps_per_epoch == 0,
                metrics=run.tracker.remembered(),
                **made_with(run.recipe, run.splits),
            )
            return folder

        folder = on_main(accelerator, self._told(state.step, stage))
        writer = ShardWriter(
            folder, accelerator.process_index, accelerator.num_processes, self._in_background
        )
        self._pending = _Pending(state, writer, started)
        writer.write("model", full_weights(run.objective, run.parameters))
        writer.write("optimizer", full_moments(run.objective, run.optimizer, run.parameters))
        if not self._in_background:
            self.finish(run)

    @property
    def busy(self) -> bool:
        """Whether this rank is still writing."""
        return self._pending is not None and self._pending.writer.busy

    def finish(self, run: "Run") -> None:
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
            self._store.prune(run.recipe.checkpoint, pending.state.best_step)

        on_main(self._accelerator, self._told(pending.state.step, publish))
        writing = pending.writer.last_written - pending.started
        self._longest = max(self._longest or 0.0, writing + time.monotonic() - published)

    @contextmanager
    def closing(self, run: "Run") -> Generator[None]:
        """Publishes what is being written where all ranks diverge, else lets it go on errors."""
        try:
            yield
        except DivergedError:
            self.finish(run)
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
