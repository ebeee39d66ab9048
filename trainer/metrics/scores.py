"""Scores: what each example adds to the metrics, so that they can be recomputed on any examples."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Scores:
    """What each example of a split adds to sums, and the metrics as functions of these sums.

    The metrics of a resample of the examples are those of its sums, so no text is scored again.
    """

    sums: np.ndarray
    """float64 [num_examples, num_sums]."""
    metrics: Mapping[str, Callable[[np.ndarray], np.ndarray]]
    """Name of a metric to a function from summed rows, float64 [..., num_sums], to values [...], in
    the metric's own scale."""
    right: np.ndarray | None = None
    """bool [num_examples]: whether the answer is right, if an example is either right or wrong."""
    shares: tuple[str, ...] = ()
    """The metrics that are the share of examples of which `right` is true."""
    clusters: np.ndarray | None = None
    """int [num_examples]: number of the article or document that an example belongs to; None if
    examples do not share any."""
