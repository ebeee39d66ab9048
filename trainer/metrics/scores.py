"""Scores: what each example adds to the metrics, so that they can be recomputed on any examples."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np

Metric = Callable[[np.ndarray], np.ndarray]
"""From sums, float64 [..., num_sums], to values [...]; NaN if the sums do not define it."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What each example of a split adds to sums, and the metrics as functions of these sums.

    The metrics of a resample of the examples are those of its sums, so no text is scored again.
    Equal examples share an outcome: a classifier's many examples have few.
    """

    outcomes: np.ndarray
    """float64 [num_outcomes, num_sums]: what an example of each outcome adds."""
    outcome_of: np.ndarray
    """int64 [num_examples]: index of each example's outcome."""
    metrics: Mapping[str, Metric]
    """Metrics by name, each in its own scale."""
    right: np.ndarray | None = None
    """bool [num_examples]: whether the answer is right, if an example is either right or wrong."""
    shares: tuple[str, ...] = ()
    """The metrics that are the share of examples of which `right` is true."""
    clusters: np.ndarray | None = None
    """int64 [num_examples]: number of the article or document that an example belongs to, from 0;
    None if examples do not share any."""
    texts: Sequence[tuple[str, Sequence[str]]] | None = None
    """Prediction and references of each example, from which `bleu` was computed; an example without
    references does not count. None if there is no `bleu`."""

    @property
    def num_examples(self) -> int:
        return len(self.outcome_of)

    def values(self) -> dict[str, float]:
        """Returns the metrics over all examples."""
        counts = np.bincount(self.outcome_of, minlength=len(self.outcomes))
        sums = counts @ self.outcomes
        return {name: float(metric(sums)) for name, metric in self.metrics.items()}

    def of(self, examples: np.ndarray) -> Self:
        """Returns the scores of the examples with these indices, int64 [any], in this order."""
        texts, clusters = self.texts, self.clusters
        return replace(
            self,
            outcome_of=self.outcome_of[examples],
            right=None if self.right is None else self.right[examples],
            clusters=None if clusters is None else numbered(clusters[examples].tolist()),
            texts=None if texts is None else [texts[index] for index in examples.tolist()],
        )


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Returns part / whole, and NaN where whole is 0."""
    return np.where(whole == 0, np.nan, part / np.where(whole == 0, 1, whole))


def distinct(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the different rows of a matrix, [num_different, columns], and the index of each row
    among them, [rows]."""
    rows = np.ascontiguousarray(rows)
    as_bytes = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel()
    _, first, index = np.unique(as_bytes, return_index=True, return_inverse=True)
    return rows[first], index


def numbered(groups: Sequence[Any]) -> np.ndarray | None:
    """Returns numbers from 0 for groups in the order in which they first occur, int64 [examples].

    None if no two examples share a group.
    """
    numbers: dict[Any, int] = {}
    of_each = [numbers.setdefault(group, len(numbers)) for group in groups]
    return np.array(of_each, np.int64) if len(numbers) < len(groups) else None


def have(records: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> bool:
    """Returns whether there are records, and each has these fields with values of these types."""
    return bool(records) and all(
        isinstance(record.get(name), kind) for record in records for name, kind in fields.items()
    )
