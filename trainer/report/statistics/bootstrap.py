"""The bootstrap: metrics of resampled examples, for systems that answered the same examples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from trainer.metrics.scores import Scores
from trainer.report.statistics.closed_forms import CONFIDENCE, Interval

NUM_RESAMPLES = 2000
"""Enough for percentiles (Efron and Tibshirani 1993, section 19.3) and p-values from 0.001 on."""
MANY_RESAMPLES = 10_000
"""Enough for p-values from 0.0002 on; for resamples that cost no more than drawing CHEAP
examples."""
CHEAP = 5000
SEED = 1
MOST_WEIGHTS = 2**22
"""Weights of units in memory at once, 8 bytes each."""
DRAWS_PER_UNIT = 20
"""Examples drawn one by one in the time of a multinomial draw's unit."""
ROUNDING = 1e-9
"""Largest difference that may be due to the order of a sum."""
SPARSE = 0.05
"""Share of sums to which an example adds, below which a sparse product is faster."""


@dataclass(frozen=True, kw_only=True)
class Resampled:
    """The sums of several systems over the same resamples of their examples."""

    systems: tuple[Scores, ...]
    sums: tuple[np.ndarray, ...]
    """Of each system, float64 [num_resamples, num_sums]."""

    def values(self, system: int, metric: str) -> np.ndarray:
        """Returns a metric of a system on each resample, [num_resamples]; NaN if the resample
        does not define it."""
        return self.systems[system].metrics[metric](self.sums[system])

    def have(self, metric: str, *systems: int) -> bool:
        """Returns whether all these systems have a metric."""
        return all(metric in self.systems[system].metrics for system in systems)


def resample(systems: Sequence[Scores]) -> Resampled | None:
    """Returns systems on the same resamples of their examples, drawn with replacement.

    Systems answered the same examples in the same order. If examples share clusters, which the
    first system names, whole clusters are drawn (Davison and Hinkley 1997, section 3.8). Fewer than
    two examples or clusters give None.

    Equal examples are drawn together, as a multinomial count, so many examples of few kinds cost
    what their kinds cost. The seed is fixed.
    """
    rows, sizes = _clusters(systems) if systems[0].clusters is not None else _kinds(systems)
    if sizes.sum() < 2:
        return None
    generator = np.random.default_rng(SEED)
    is_cheap = min(int(sizes.sum()), DRAWS_PER_UNIT * len(sizes)) <= CHEAP
    num_resamples = MANY_RESAMPLES if is_cheap else NUM_RESAMPLES
    sums = [np.empty((num_resamples, matrix.shape[1])) for matrix in rows]
    at_once = max(1, MOST_WEIGHTS // len(sizes))
    for first in range(0, num_resamples, at_once):
        drawn = slice(first, min(first + at_once, num_resamples))
        weights = _draw(generator, sizes, drawn.stop - drawn.start)
        for total, matrix in zip(sums, rows, strict=True):
            total[drawn] = weights @ matrix
    return Resampled(systems=tuple(systems), sums=tuple(sums))


def percentiles(values: np.ndarray) -> Interval | None:
    """Returns the percentile interval of resampled values (Efron and Tibshirani 1993, chapter 13).

    Resamples that do not define the value are left out. None if none defines it, or if it is the
    same on all of them: then the examples say nothing about its spread.
    """
    values = values[~np.isnan(values)]
    if not len(values) or values.min() == values.max():
        return None
    low, high = np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def p_value(differences: np.ndarray) -> float:
    """Returns the two-sided p-value of resampled differences from 0.

    Twice the share of resamples on the other side of 0, with one resample added to both counts
    (Davison and Hinkley 1997, section 4.2), so it is below 0.05 if the percentile interval leaves
    out 0, up to rounding. It is 1 if no difference was defined.
    """
    differences = differences[~np.isnan(differences)]
    beyond = min((differences <= ROUNDING).sum(), (differences >= -ROUNDING).sum())
    return min(1.0, 2 * float(beyond + 1) / (len(differences) + 1))


def _kinds(systems: Sequence[Scores]) -> tuple[list[Any], np.ndarray]:
    """Returns the rows of sums of each kind of example, by system, and the number of its examples.

    Examples are of a kind if every system has the same outcome for them.
    """
    kind_of = systems[0].outcome_of
    for system in systems[1:]:
        codes = kind_of * len(system.outcomes) + system.outcome_of
        _, kind_of = np.unique(codes, return_inverse=True)
    _, first, sizes = np.unique(kind_of, return_index=True, return_counts=True)
    rows = [_compact(system.outcomes)[system.outcome_of[first]] for system in systems]
    return rows, sizes


def _compact(outcomes: np.ndarray) -> Any:
    """Returns a matrix as it is, or sparse if it is mostly zeros, as with many classes."""
    from scipy import sparse

    is_sparse = np.count_nonzero(outcomes) < SPARSE * outcomes.size
    return sparse.csr_array(outcomes) if is_sparse else outcomes


def _clusters(systems: Sequence[Scores]) -> tuple[list[Any], np.ndarray]:
    """Returns the sums of each cluster, by system, and 1 for each cluster."""
    cluster_of = systems[0].clusters
    assert cluster_of is not None
    num_clusters = int(cluster_of.max()) + 1
    rows: list[np.ndarray] = []
    for system in systems:
        matrix = np.zeros((num_clusters, system.outcomes.shape[1]))
        np.add.at(matrix, cluster_of, system.outcomes[system.outcome_of])
        rows.append(matrix)
    return rows, np.ones(num_clusters, np.int64)


def _draw(generator: np.random.Generator, sizes: np.ndarray, num_resamples: int) -> np.ndarray:
    """Returns how often each kind is drawn, float64 [num_resamples, num_kinds]."""
    total = int(sizes.sum())
    if len(sizes) * DRAWS_PER_UNIT < total:
        return generator.multinomial(total, sizes / total, num_resamples).astype(float)
    kinds = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    weights = np.empty((num_resamples, len(sizes)))
    for row in weights:
        drawn = kinds[generator.integers(total, size=total, dtype=np.uint32)]
        row[:] = np.bincount(drawn, minlength=len(sizes))
    return weights
