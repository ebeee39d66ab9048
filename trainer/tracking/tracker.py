"""What a run records while it trains: lines of metrics.jsonl, values for trackers, and progress."""

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from trainer.files.durable import flush, write_text
from trainer.state import TrainState
from trainer.tracking.metric_lines import lines_at, remembered
from trainer.tracking.progress import Progress, Update, evaluation_message
from trainer.tracking.rank_times import RankSummary
from trainer.tracking.resident_memory import peak_resident_bytes
from trainer.tracking.time_to_go import Planned, TimeToGo
from trainer.tracking.trackers import log_report, shows_reports


class Tracker:
    """Writes metrics.jsonl, feeds the trackers and reports progress, on the main process only."""

    def __init__(
        self,
        accelerator: Accelerator,
        file: Path,
        *,
        num_steps: int,
        progress: Progress | None = None,
        deciding_metric: str | None = None,
    ) -> None:
        self._accelerator = accelerator
        self._file = file
        self._num_steps = num_steps
        self._active = accelerator.is_main_process
        self._show = progress if self._active else None
        self._logged_tokens = 0
        self._step = 0
        self._time_to_go = TimeToGo(num_steps)
        self._peak = 0
        self._peak_since_evaluation = 0
        self._deciding_metric = deciding_metric
        self._metric: tuple[str, float] | None = None

    def start(self, state: TrainState, memory: Mapping[str, Any] | None = None) -> None:
        """Continues from `state`: removes later lines, which the run will write again.

        `memory` is what the checkpoint remembers of the lines. Raises RunDirectoryError, on the
        main process, if they have changed.
        """
        self._logged_tokens, self._step = state.tokens, state.step
        if self._active and os.path.lexists(self._file):
            kept = lines_at(self._file, state, memory or {})
            write_text(self._file, "".join(f"{line}\n" for line in kept))
            for line in kept:
                self._note_metric(json.loads(line))

    def remembered(self) -> dict[str, Any]:
        """Returns what a checkpoint remembers of the lines so far, after flushing them to disk."""
        if self._file.is_file():
            flush(self._file)
        return remembered(self._file)

    def log_training(
        self,
        state: TrainState,
        epoch: int,
        values: dict[str, float],
        rate: float,
        seconds: float,
        ranks: RankSummary | None,
    ) -> dict[str, Any]:
        """Writes and returns the line of a training step, and shows the note of `ranks` if it has
        one.

        `seconds` is the time since the last line.
        """
        tokens = state.tokens - self._logged_tokens
        self._logged_tokens = state.tokens
        record = {
            "step": state.step,
            "epoch": epoch,
            "split": "train",
            **{name: value if math.isfinite(value) else None for name, value in values.items()},
            "learning_rate": rate,
            "samples": state.samples,
            "tokens": state.tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / max(seconds, 1e-9),
            "peak_memory_bytes": self._measure_memory(),
            **({"ranks": ranks.record()} if ranks is not None else {}),
        }
        self.log(record)
        if ranks is not None and ranks.note is not None:
            self.say(f"note: {ranks.note}")
        return record

    def log_evaluation(
        self, state: TrainState, epoch: int, metrics: dict[str, Any], *, split: str = "validation"
    ) -> None:
        """Writes and shows the line of an evaluation, with the mean training loss since the last
        one."""
        train_loss = state.loss_sum / state.loss_steps if state.loss_steps else None
        position = {"step": state.step, "epoch": epoch, "split": split}
        self._measure_memory()
        peak, self._peak_since_evaluation = self._peak_since_evaluation, 0
        self.log({**position, **metrics, "train_loss": train_loss, "peak_memory_bytes": peak})
        self.say(evaluation_message(split, state.step, metrics))

    def log(self, record: dict[str, Any]) -> None:
        """Writes a line of metrics.jsonl, and sends its numbers to the trackers as split/name."""
        if not self._active:
            return
        self._note_metric(record)
        with self._file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        numbers = {
            f"{record['split']}/{name}": value
            for name, value in record.items()
            if isinstance(value, int | float) and name not in ("step", "epoch")
        }
        self._accelerator.log(numbers, step=record["step"])

    @property
    def shows_reports(self) -> bool:
        """Whether a tracker shows what `log_report` gets."""
        return shows_reports(self._accelerator)

    def log_report(self, text: str, figures: Mapping[str, bytes]) -> None:
        """Shows the report of the finished run in the trackers: its Markdown, and figures as PNG
        files by name."""
        if self._active:
            log_report(self._accelerator, text, figures, step=self._step)

    def progress(self, step: int, record: dict[str, Any] | None) -> None:
        """Reports a step that was taken, with its line of metrics.jsonl if one was written, and
        once in a session how long the run will take."""
        self._step = step
        self._tell(record=record)
        to_go = self._time_to_go.after(step)
        if to_go is not None:
            self.say(to_go)

    @property
    def planned(self) -> Planned | None:
        """What the plan of the run says, if `expect` was called."""
        return self._time_to_go.planned

    def expect(self, planned: Planned | None) -> None:
        """Takes what the plan of the run says, for the message on the time to go."""
        self._time_to_go.planned = planned

    def paused_since(self, began: float) -> float:
        """Returns the seconds since `began`, a time of time.monotonic(), in which the run did not
        train; they do not count in the time to go."""
        seconds = time.monotonic() - began
        self._time_to_go.pause(seconds)
        return seconds

    def say(self, message: str) -> None:
        """Reports a message of one or several lines."""
        self._tell(message=message)

    def close(self) -> None:
        """Reports that no more steps follow."""
        self._tell(ended=True)

    def peak_memory(self) -> int:
        """Returns the peak memory of this process in bytes: of its GPU if it has one."""
        self._measure_memory()
        return self._peak

    def _measure_memory(self) -> int:
        """Returns the peak memory since the last call, and adds it to the longer peaks."""
        peak = _peak_memory_since_last_call()
        self._peak = max(self._peak, peak)
        self._peak_since_evaluation = max(self._peak_since_evaluation, peak)
        return peak

    def _note_metric(self, record: Mapping[str, Any]) -> None:
        """Remembers the deciding metric if a line of metrics.jsonl has it."""
        name = self._deciding_metric
        value = record.get(name) if name is not None else None
        if name is not None and record["split"] == "validation" and isinstance(value, int | float):
            self._metric = (name, value)

    def _tell(
        self,
        *,
        message: str | None = None,
        record: dict[str, Any] | None = None,
        ended: bool = False,
    ) -> None:
        if self._show is not None:
            self._show(
                Update(
                    message=message,
                    step=self._step,
                    num_steps=self._num_steps,
                    record=record,
                    metric=self._metric,
                    ended=ended,
                )
            )


def _peak_memory_since_last_call() -> int:
    """Returns the peak memory since the last call, in bytes; on a CPU, since the process began."""
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    return peak_resident_bytes()
