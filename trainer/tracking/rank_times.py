"""What each rank computes between two lines of metrics.jsonl, and which one keeps the others back.

Seconds are those of forward passes, in which no rank waits for another, but for ZeRO-3 and FSDP2:
there each gathers weights from all, so that a slow rank makes the others slow and ranks lie closer
together than they are.
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
"""Times the median rank that the slowest takes before it is named."""
NUM_LINES = 2
"""Lines in a row for which it does."""


@dataclass(frozen=True, kw_only=True)
class RankSummary:
    """What ranks computed since the last line; of an even number the median is the lower one."""

    tokens: list[int]
    """Real tokens by rank."""
    seconds: list[float]
    """Time in forward passes by rank."""
    note: str | None = None
    """What is to be said of the slowest rank."""

    @property
    def slowest(self) -> int:
        return max(range(len(self.seconds)), key=self.seconds.__getitem__)

    @property
    def ratio(self) -> float:
        """How many times as long as the median rank the slowest one computes."""
        return max(self.seconds) / max(median_low(self.seconds), 1e-9)

    def record(self) -> dict[str, Any]:
        """Returns tokens [least, most], seconds [least, median, most] and the slowest rank."""
        return {
            "tokens": [min(self.tokens), max(self.tokens)],
            "seconds": [min(self.seconds), median_low(self.seconds), max(self.seconds)],
            "slowest": self.slowest,
        }

    def sentence(self, host: str) -> str:
        """Returns what a reader should know of the slowest rank, which computes on `host`."""
        return (
            f"rank {self.slowest} ({host}) computes {self.ratio:.1f} times as long as the median "
            f"rank, on {self.tokens[self.slowest]:,} tokens where ranks have "
            f"{min(self.tokens):,} to {max(self.tokens):,}; every step waits for it: see what "
            f"else runs there"
        )


def slow_rank(lines: Sequence[RankSummary]) -> int | None:
    """Returns the rank that was much the slowest in each of the last lines, None where none was."""
    last = lines[-NUM_LINES:]
    ranks = {line.slowest if line.ratio > SLOW else None for line in last}
    return ranks.pop() if len(last) == NUM_LINES and len(ranks) == 1 else None


class RankTimes:
    """Measures this rank, and compares it with the others where a line is written."""

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._tokens = 0
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []
        self._lines: list[RankSummary] = []
        self._named: int | None = None

    def count(self, lengths: np.ndarray) -> None:
        """Counts the tokens of examples that this rank is about to compute."""
        self._tokens += int(lengths.sum())

    @contextmanager
    def forward(self) -> Generator[None]:
        """Measures a forward pass; on a GPU by events, which are read with the next line only."""
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
        """Returns what all ranks computed since the last call, None of a single process.

        Every rank calls it at the same step. A rank that becomes slow is named once.
        """
        if self._events:
            self._events[-1][1].synchronize()
            self._seconds += sum(start.elapsed_time(end) for start, end in self._events) / 1000
        mine = [self._tokens, self._seconds]
        self._tokens, self._seconds, self._events = 0, 0.0, []
        if self._accelerator.num_processes == 1:
            return None
        tensor = torch.tensor([mine], dtype=torch.float64, device=self._accelerator.device)
        gathered: Any = self._accelerator.gather(tensor)
        tokens, seconds = gathered.T.tolist()
        found = RankSummary(tokens=[int(number) for number in tokens], seconds=seconds)
        self._lines = [*self._lines[1 - NUM_LINES :], found]
        slow, before = slow_rank(self._lines), self._named
        self._named = slow
        if slow is None or slow == before:
            return found
        hosts = gather_object([socket.gethostname()])  # every rank read the same numbers
        return replace(found, note=found.sentence(hosts[slow]))
