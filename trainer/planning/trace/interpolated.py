"""Traced steps of any length, made from those of three lengths.

Whatever the length, the same tensors are made, and the size of each is a polynomial of the length:
a constant, linear, or quadratic as for the scores of attention. The caller keeps lengths apart for
which that does not hold, such as those that exceed a window of attention.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Self

import numpy as np

from trainer.planning.trace.step import TracedStep
from trainer.planning.trace.storages import FREED, Event

MULTIPLE = 64
"""Lengths of which the rows of masks are aligned alike, and chunks of a loss end alike."""


@dataclass(frozen=True, eq=False)
class Interpolation:
    """Steps of examples whose length is a multiple of MULTIPLE."""

    lengths: tuple[int, ...]
    """The three lengths that were traced."""
    log: list[Event]
    """That of the first one."""
    sizes: np.ndarray
    """Sizes of the events of each length, [3, events]."""
    counted: np.ndarray
    """Floating-point operations and kernels of each length, [3, 2]."""

    @classmethod
    def of(cls, known: Mapping[int, TracedStep]) -> Self | None:
        """Returns what steps by length tell of others; None if fewer than three lengths are
        multiples of MULTIPLE, or if what they make differs in more than its sizes."""
        lengths = sorted(length for length in known if length % MULTIPLE == 0)[:3]
        if len(lengths) < 3:
            return None
        steps = [known[length] for length in lengths]
        logs = [_in_order(step.log) for step in steps]
        made = [[(event.storage, event.kind, event.section) for event in log] for log in logs]
        if not made[0] == made[1] == made[2]:
            return None
        return cls(
            tuple(lengths),
            logs[0],
            np.array([[event.size for event in log] for log in logs], dtype=np.float64),
            np.array([(step.flops, step.kernels) for step in steps], dtype=np.float64),
        )

    def at(self, length: int) -> TracedStep | None:
        """Returns the step of examples of `length` tokens; None if it cannot be made.

        A tensor whose size does not grow with the length, such as the rest of a chunk, gets its
        largest size.
        """
        if length % MULTIPLE:
            return None
        grows = (np.diff(self.sizes, axis=0) >= 0).all(axis=0)
        sizes = np.rint(np.where(grows, self._at(self.sizes, length), self.sizes.max(axis=0)))
        if (np.sign(sizes) != np.sign(self.sizes[0])).any():
            return None
        flops, kernels = np.rint(self._at(self.counted, length)).astype(int).tolist()
        log = [
            Event(event.storage, size, event.kind, event.section)
            for event, size in zip(self.log, sizes.astype(int).tolist(), strict=True)
        ]
        return TracedStep(log=log, flops=flops, kernels=kernels)

    def _at(self, values: np.ndarray, length: int) -> np.ndarray:
        """Returns what the parabola through `values` [3, …] has at a length (Lagrange)."""
        weights = [
            np.prod([(length - root) / (node - root) for root in self.lengths if root != node])
            for node in self.lengths
        ]
        return np.tensordot(np.array(weights), values, axes=1)


def _in_order(log: list[Event]) -> list[Event]:
    """Returns a log in which storages that are freed one after the other are so by their number: in
    which order Python frees them varies, and makes no difference to the allocator."""
    ordered: list[Event] = []
    for freed, run in groupby(log, lambda event: event.size == FREED):
        events = list(run)
        ordered += sorted(events, key=lambda event: event.storage) if freed else events
    return ordered
