"""Intervals and tests: what a measured number is worth, in closed form."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev
from typing import Any

CONFIDENCE = 0.95
"""Of every interval; tests are two-sided at LEVEL."""
LEVEL = 0.05
"""A smaller p-value is called significant."""
POWER = 0.8
"""Probability with which a difference of the smallest detectable size is found."""
_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_Z_POWER = NormalDist().inv_cdf(POWER)

Interval = tuple[float, float]


def wilson(num_right: float, num_examples: int) -> Interval:
    """Returns the interval of a share, between 0 and 1, from independent examples.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", without a
    correction for continuity. It is sound for few examples, and if all or none are right.
    """
    share, shrink = num_right / num_examples, 1 + _Z**2 / num_examples
    centre = (share + _Z**2 / (2 * num_examples)) / shrink
    spread = share * (1 - share) / num_examples + _Z**2 / (4 * num_examples**2)
    half = _Z * math.sqrt(spread) / shrink
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True)
class Discordant:
    """Examples that one of two systems answers rightly and the other one wrongly."""

    won: int
    """Only the second system is right."""
    lost: int
    """Only the first system is right."""
    num_examples: int

    @property
    def difference(self) -> float:
        """Share of right answers of the second system minus that of the first."""
        return (self.won - self.lost) / self.num_examples


def mcnemar(pairs: Discordant) -> float:
    """Returns the two-sided p-value of McNemar's exact test (McNemar 1947): the binomial test of
    the discordant examples. It is 1 if there are none."""
    from scipy import stats

    num_discordant = pairs.won + pairs.lost
    if not num_discordant:
        return 1.0
    test: Any = stats.binomtest(pairs.won, num_discordant)
    return float(test.pvalue)


def difference_interval(pairs: Discordant) -> Interval:
    """Returns the interval of the difference between two shares on the same examples.

    Bonett and Price 2012, "Adjusted Wald confidence interval for a difference of binomial
    proportions based on paired data": Wald's, with one more example of each discordant kind.
    """
    total = pairs.num_examples + 2
    won, lost = (pairs.won + 1) / total, (pairs.lost + 1) / total
    half = _Z * math.sqrt((won + lost - (won - lost) ** 2) / total)
    return max(-1.0, won - lost - half), min(1.0, won - lost + half)


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values that are adjusted for testing all of them, in the same order.

    Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, largest = [1.0] * len(p_values), 0.0
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def t_interval(values: Sequence[float]) -> Interval | None:
    """Returns the interval of the mean over seeds, by Student's t; None for fewer than two seeds,
    or if they agree exactly, which says nothing about how far others would be.

    It takes the results of seeds for a sample of a normal distribution, so few seeds give a wide
    interval.
    """
    from scipy import stats

    if len(set(values)) < 2 or not all(map(math.isfinite, values)):
        return None
    quantile: Any = stats.t.ppf(0.5 + CONFIDENCE / 2, len(values) - 1)
    half = float(quantile) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def detectable_between_pairs(pairs: Discordant) -> float | None:
    """Returns the smallest difference between two shares on the same examples that McNemar's test
    finds with probability POWER, if as large a share of the examples is discordant as here.

    With the discordant share s and n examples, it is the d that solves
    n d^2 = (z sqrt(s) + z_power sqrt(s - d^2))^2: Connor 1987, "Sample size for testing differences
    in proportions for the paired-sample design". None if so few examples are discordant that no
    difference is large enough.
    """
    discordant = (pairs.won + pairs.lost) / pairs.num_examples

    def is_found(difference: float) -> bool:
        spread = math.sqrt(max(discordant - difference**2, 0.0))
        needed = _Z * math.sqrt(discordant) + _Z_POWER * spread
        return difference * math.sqrt(pairs.num_examples) >= needed

    return _smallest(is_found, discordant)


def detectable_from_share(share: float, num_examples: int) -> float | None:
    """Returns the smallest difference from a fixed share that the test of one proportion finds with
    probability POWER.

    With p the share, q = p + d or, if p is above one half, p - d, it is the d that solves
    n d^2 = (z sqrt(p (1 - p)) + z_power sqrt(q (1 - q)))^2: Fleiss, Levin and Paik 2003,
    "Statistical Methods for Rates and Proportions", section 2.4. None if there are too few examples
    to find any.
    """
    sign = 1 if share <= 0.5 else -1

    def is_found(difference: float) -> bool:
        second = min(max(share + sign * difference, 0.0), 1.0)
        needed = _Z * math.sqrt(share * (1 - share)) + _Z_POWER * math.sqrt(second * (1 - second))
        return difference * math.sqrt(num_examples) >= needed

    return _smallest(is_found, max(share, 1 - share))


def detectable_from_error(standard_error: float) -> float:
    """Returns the smallest difference that is found with probability POWER, by its standard
    error.

    (z + z_power) times the error, which is 2.8 times: Bloom 1995, "Minimum detectable effects".
    """
    return (_Z + _Z_POWER) * standard_error


def _smallest(is_found: Callable[[float], bool], most: float) -> float | None:
    """Returns the smallest difference up to `most` that is found; None if `most` is not."""
    if most <= 0 or not is_found(most):
        return None
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if is_found(middle) else (middle, high)
    return high
