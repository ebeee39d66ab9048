"""What a run says while it goes: metrics.jsonl, trackers, a progress bar or plain lines."""

import json
import math
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from tqdm import tqdm

from trainer.files.durable import flush, write_text
from trainer.state import TrainState
from trainer.tracking.metric_lines import lines_at, metrics_at, read_lines, remembered
from trainer.tracking.rank_times import RankSummary

__all__ = ["Tracker", "metrics_at", "read_lines"]


class Tracker:
    """Writes metrics.jsonl, trackers and progress, from the main process only."""

    def __init__(self, accelerator: Accelerator, file: Path, *, num_steps: int) -> None:
        self._accelerator = accelerator
        self._file = file
        self._num_steps = num_steps
        self._logged_tokens = 0
        self._first: tuple[int, float] | None = None
        self._bar: tqdm[Any] | None = None
        self._active = accelerator.is_main_process
        self._peak = 0

    def start(self, state: TrainState, memory: Mapping[str, Any] | None = None) -> None:
        """Goes on from `state`: later lines are removed, for the run writes them again.

        `memory` is what its checkpoint remembers of the lines. Raises RunDirectoryError, on the
        main process, where they are not there any more.
        """
        self._logged_tokens = state.tokens
        if self._active and os.path.lexists(self._file):
            kept = lines_at(self._file, state, memory or {})
            write_text(self._file, "".join(f"{line}\n" for line in kept))

    def remembered(self) -> dict[str, Any]:
        """Returns what a checkpoint remembers of the lines so far, once they lie on the disk."""
        if self._file.is_file():
            flush(self._file)
        return remembered(self._file)

    def training(
        self,
        state: TrainState,
        epoch: int,
        values: dict[str, float],
        rate: float,
        seconds: float,
        ranks: RankSummary | None,
    ) -> dict[str, Any]:
        """Writes and returns the line of a training step; seconds are those since the last line.

        What is to be said of a rank of `ranks` is printed.
        """
        tokens = state.tokens - self._logged_tokens
        self._logged_tokens = state.tokens
        record = {
            "step": state.step,
            "epoch": epoch,
            "split": "train",
            **{key: v if math.isfinite(v) else None for key, v in values.items()},
            "learning_rate": rate,
            "samples": state.samples,
            "tokens": state.tokens,
            "seconds": seconds,
            "tokens_per_second": tokens / max(seconds, 1e-9),
            **({"ranks": ranks.record()} if ranks is not None else {}),
        }
        self.log(record)
        if ranks is not None and ranks.note is not None:
            self.say(f"note: {ranks.note}")
        return record

    def evaluation(
        self, state: TrainState, epoch: int, metrics: dict[str, Any], *, split: str = "validation"
    ) -> None:
        """Writes and prints the line of an evaluation, with the mean training loss before it."""
        train_loss = state.loss_sum / state.loss_steps if state.loss_steps else None
        position = {"step": state.step, "epoch": epoch, "split": split}
        peak = _peak_memory_of_a_stretch()
        self._peak = max(self._peak, peak)
        self.log({**position, **metrics, "train_loss": train_loss, "peak_memory_bytes": peak})
        numbers = "  ".join(
            f"{name} {value:.4f}"
            for name, value in metrics.items()
            if isinstance(value, float) and name != "seconds" and not name.endswith("_macro")
        )
        self.say(f"{split} after step {state.step}: {numbers}")

    def log(self, record: dict[str, Any]) -> None:
        """Writes a line of metrics.jsonl; its numbers go to the trackers under split/name."""
        if not self._active:
            return
        with self._file.open("a") as file:
            file.write(json.dumps(record) + "\n")
        numbers = {
            f"{record['split']}/{name}": value
            for name, value in record.items()
            if isinstance(value, int | float) and name not in ("step", "epoch")
        }
        self._accelerator.log(numbers, step=record["step"])

    def progress(self, step: int, record: dict[str, Any] | None) -> None:
        """Shows a step: a bar on a terminal, a line for each record elsewhere."""
        if not self._active:
            return
        now = time.monotonic()
        if self._first is None:
            self._first = (step, now)
        if sys.stderr.isatty():
            if self._bar is None:
                self._bar = tqdm(total=self._num_steps, initial=step, unit="step", leave=True)
            self._bar.update(step - self._bar.n)
            if record is not None:
                speed = record["tokens_per_second"]
                self._bar.set_postfix_str(f"loss {record['loss']:.4f}, {speed:,.0f} tokens/s")
        elif record is not None:
            first_step, start = self._first
            pace = (now - start) / (step - first_step) if step > first_step else math.nan
            left = _duration(pace * (self._num_steps - step))
            self.say(
                f"step {step}/{self._num_steps}  loss {record['loss']:.4f}  "
                f"{record['tokens_per_second']:,.0f} tokens/s  {left} left"
            )

    def say(self, message: str) -> None:
        """Prints a line from the main process without breaking the bar."""
        if self._active:
            tqdm.write(message, file=sys.stdout)
            sys.stdout.flush()

    def peak_memory(self) -> int:
        """Returns the most bytes that this process held so far, of its GPU where it has one."""
        self._peak = max(self._peak, _peak_memory_of_a_stretch())
        return self._peak

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _peak_memory_of_a_stretch() -> int:
    """Returns the most bytes held since the last call, on a CPU since the process started."""
    if torch.cuda.is_available():
        peak = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return peak
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _duration(seconds: float) -> str:
    if math.isnan(seconds):
        return "?"
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
