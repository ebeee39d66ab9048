"""The work of each rank between two lines of metrics.jsonl, and which rank slows down the others.

Only forward passes are timed, because no rank waits for another in them. ZeRO-3 and FSDP2 are the
exception: they gather weights from all ranks there, so a slow rank delays the others, and the times
differ less than the speeds of the ranks.
"""

import socket
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from statistics import median_low
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

SLOW = 1.5
"""The slowest rank is reported if it takes this many times as long as the median rank."""
NUM_LINES = 2
"""Number of consecutive lines in which it must."""


@dataclass(frozen=True, kw_only=True)
class RankSummary:
    """What the ranks computed since the last line. Of an even number, the lower median counts."""

    tokens: list[int]
    """Tokens of examples, without padding, by rank."""
    seconds: list[float]
    """Time in forward passes by rank."""
    note: str | None = None
    """A sentence about the slowest rank, if it should be reported."""

    @property
    def slowest(self) -> int:
        return max(range(len(self.seconds)), key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """Time of the slowest rank over that of the median rank."""
        return max(self.seconds) / max(median_low(self.seconds), 1e-9)

    def record(self) -> dict[str, Any]:
        """Returns tokens [min, max], seconds [min, median, max] and the slowest rank."""
        return {
            "tokens": [min(self.tokens), max(self.tokens)],
            "seconds": [min(self.seconds), median_low(self.seconds), max(self.seconds)],
            "slowest": self.slowest,
        }

    def sentence(self, host: str) -> str:
        """Returns the sentence about the slowest rank, which runs on `host`."""
        return (
            f"rank {self.slowest} ({host}) computes {self.ratio:.1f} times as long as the median "
            f"rank, on {self.tokens[self.slowest]:,} tokens; ranks have "
            f"{min(self.tokens):,} to {max(self.tokens):,}. Every step waits for it: check what "
            f"else runs there"
        )


def slow_rank(lines: Sequence[RankSummary]) -> int | None:
    """Returns the rank that was much slower than the median in each of the last lines; None if
    there is no such rank."""
    last = lines[-NUM_LINES:]
    ranks = {line.slowest if line.ratio > SLOW else None for line in last}
    return ranks.pop() if len(last) == NUM_LINES and len(ranks) == 1 else None


class RankTimes:
    """Times this rank, and compares it with the others whenever a line is written."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._tokens = 0
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._lines: list[RankSummary] = []
        self._named: int | None = None

    def count(self, lengths: np.ndarray) -> None:
        """Counts the tokens of the examples that this rank is about to compute."""
        self._tokens += int(lengths.sum())

    @contextmanager
    def forward(self) -> Generator[None]:
        """Context manager: times a forward pass. On a GPU, by events that the next line reads."""
        if self._accelerator.device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            yield
            end.record()
            self._events.append((start, end))
        else:
            begin = time.perf_counter()
            yield
            self._seconds += time.perf_counter() - begin

    def summary(self) -> RankSummary | None:
        """Returns what all ranks computed since the last call; None if there is one process.

        Collective: every rank calls it at the same step. A rank that becomes slow is reported once.
        """
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
        own = [self._tokens, self._seconds]
        self._tokens, self._seconds, self._events = 0, 0.0, []
        if self._accelerator.num_processes == 1:
            return None
        tensor = torch.tensor([own], dtype=torch.float64, device=self._accelerator.device)
        gathered: Any = self._accelerator.gather(tensor)
        tokens, seconds = gathered.T.tolist()
        summary = RankSummary(tokens=[int(number) for number in tokens], seconds=seconds)
        self._lines = [*self._lines[1 - NUM_LINES :], summary]
        slow, before = slow_rank(self._lines), self._named
        self._named = slow
        if slow is None or slow == before:
            return summary
        hosts = gather_object([socket.gethostname()])  # collective: all ranks compared alike
        return replace(summary, note=summary.sentence(hosts[slow]))
