"""Calibration: how far the probabilities of answers are from the share of them that is right."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NUM_BINS = 10


def reliability(confidences: Sequence[float], right: Sequence[bool]) -> dict[str, Any] | None:
    """Returns answers in NUM_BINS bins of equal width by confidence, and their calibration error.

    A bin holds confidences above `low` and up to `high`; it has the `count` of its answers, their
    mean `confidence` and `accuracy`, both None without answers. `ece` is the expected calibration
    error, the mean over answers of the distance between both in their bin (Guo et al. 2017, "On
    Calibration of Modern Neural Networks", equation 3). None if there are no answers.
    """
    if not len(confidences):
        return None
    sure = np.clip(np.asarray(confidences, float), 0, 1)
    correct = np.asarray(right, float)
    edges = np.arange(NUM_BINS + 1) / NUM_BINS
    places = np.maximum(np.searchsorted(edges, sure, side="left") - 1, 0)
    counts = np.bincount(places, minlength=NUM_BINS)
    sums = [np.bincount(places, values, NUM_BINS) for values in (sure, correct)]
    bins: list[dict[str, Any]] = []
    for index, count in enumerate(counts.tolist()):
        means = [float(of_bins[index]) / count if count else None for of_bins in sums]
        low, high = float(edges[index]), float(edges[index + 1])
        measured = dict(zip(("confidence", "accuracy"), means, strict=True))
        bins.append({"low": low, "high": high, "count": count, **measured})
    return {"bins": bins, "ece": float(np.abs(sums[0] - sums[1]).sum() / len(sure))}
