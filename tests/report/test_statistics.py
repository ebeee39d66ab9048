"""Intervals and tests equal SciPy's, published examples and hand-computed values."""

import math
import os
from typing import Any

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.significance import PairedTest
from scipy import stats

from trainer.metrics.scores import Scores, distinct
from trainer.report.statistics.bootstrap import NUM_RESAMPLES, p_value, percentiles, resample
from trainer.report.statistics.closed_forms import (
    Discordant,
    detectable_between_pairs,
    detectable_from_error,
    detectable_from_share,
    difference_interval,
    holm,
    mcnemar,
    t_interval,
    wilson,
)
from trainer.report.statistics.paired import (
    bleu_p_value,
    compare,
    detectable,
    paired_test,
    positions,
    smallest_p_value,
)


@pytest.mark.parametrize(("right", "total"), [(0, 1), (1, 1), (0, 20), (7, 7), (81, 263), (5, 9)])
def test_wilson_is_scipy_s(right, total):
    expected = stats.binomtest(right, total).proportion_ci(method="wilson")
    assert wilson(right, total) == pytest.approx(tuple(expected), abs=1e-12)


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_of_newcombe_s_examples(right, total, low, high):
    """Newcombe 1998, "Two-sided confidence intervals for the single proportion", table I."""
    assert wilson(right, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("won", "lost"), [(0, 1), (5, 0), (10, 2), (86, 150), (3, 3)])
def test_mcnemar_is_the_binomial_test(won, lost):
    expected = stats.binomtest(won, won + lost, 0.5).pvalue
    assert mcnemar(Discordant(won, lost, 1600)) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_by_hand():
    # 2 * (C(12, 0) + C(12, 1) + C(12, 2)) / 2^12
    assert mcnemar(Discordant(10, 2, 50)) == pytest.approx(158 / 4096)
    assert mcnemar(Discordant(0, 0, 50)) == 1.0
    assert mcnemar(Discordant(4, 4, 50)) == 1.0


def test_agresti_s_approval_ratings():
    """Agresti 2002, table 10.1: 794 and 570 agree, 150 and 86 do not; 0.54 minus 0.59 has the Wald
    interval -0.06 to -0.02, and z is -4.17."""
    pairs = Discordant(86, 150, 1600)
    assert pairs.difference == pytest.approx(880 / 1600 - 944 / 1600)
    assert difference_interval(pairs) == pytest.approx((-0.0587, -0.0213), abs=5e-4)
    normal = 2 * stats.norm.cdf(-4.17)
    assert mcnemar(pairs) == pytest.approx(normal, rel=0.3)


def test_the_interval_of_a_difference_by_hand():
    low, high = difference_interval(Discordant(9, 3, 98))
    won, lost, z = 10 / 100, 4 / 100, stats.norm.ppf(0.975)
    half = z * math.sqrt((won + lost - 0.06**2) / 100)
    assert (low, high) == pytest.approx((0.06 - half, 0.06 + half))
    low, high = difference_interval(Discordant(0, 0, 10))
    assert low == pytest.approx(-high)
    assert 0 < high < 0.5


def test_the_interval_of_a_difference_covers_it():
    """Coverage over 4,000 samples of 60 pairs with a true difference of 0.1."""
    draws = np.random.default_rng(5).multinomial(60, [0.2, 0.1, 0.7], 4000).tolist()
    intervals = [difference_interval(Discordant(won, lost, 60)) for won, lost, _ in draws]
    covered = np.mean([low <= 0.1 <= high for low, high in intervals])
    assert 0.94 <= covered <= 0.98


def test_holm_by_hand():
    # Sorted: 0.01 * 4, 0.02 * 3, max(0.06, 0.03 * 2), max(0.06, 0.04 * 1).
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.01, 0.02, 0.9]) == pytest.approx([0.03, 0.04, 0.9])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_the_t_interval_is_scipy_s():
    values = [0.80, 0.82, 0.84, 0.79, 0.85]
    mean, error = np.mean(values), stats.sem(values)
    expected = stats.t.interval(0.95, 4, loc=mean, scale=error)
    assert t_interval(values) == pytest.approx(expected, abs=1e-12)
    assert t_interval([0.5, 0.5]) is None
    assert t_interval([0.5]) is None
    assert t_interval([]) is None
    assert t_interval([0.5, float("nan")]) is None


@pytest.mark.parametrize(("won", "lost", "total"), [(30, 20, 500), (100, 100, 872), (9, 6, 100)])
def test_the_detectable_difference_of_pairs_has_its_power(won, lost, total):
    difference = detectable_between_pairs(Discordant(won, lost, total))
    assert difference is not None
    discordant = (won + lost) / total
    spread = math.sqrt((discordant - difference**2) / total)
    threshold = stats.norm.ppf(0.975) * math.sqrt(discordant / total)
    assert stats.norm.cdf((difference - threshold) / spread) == pytest.approx(0.8, abs=1e-6)


def test_mcnemar_finds_the_detectable_difference_as_often_as_it_says():
    difference = detectable_between_pairs(Discordant(120, 80, 1000))
    assert difference is not None
    shares = [(0.2 + difference) / 2, (0.2 - difference) / 2, 0.8]
    draws = np.random.default_rng(1).multinomial(1000, shares, 2000).tolist()
    result = np.mean([mcnemar(Discordant(won, lost, 1000)) < 0.05 for won, lost, _ in draws])
    assert 0.75 <= result <= 0.84


def test_the_detectable_difference_from_a_share():
    """Fleiss, Levin and Paik 2003: n = (z sqrt(p q) + z_power sqrt(p' q'))^2 / d^2."""
    for share in (0.25, 0.9):
        difference = detectable_from_share(share, 400)
        assert difference is not None
        second = share + difference if share < 0.5 else share - difference
        z, z_power = stats.norm.ppf([0.975, 0.8])
        needed = z * math.sqrt(share * (1 - share)) + z_power * math.sqrt(second * (1 - second))
        assert (needed / difference) ** 2 == pytest.approx(400, rel=1e-6)
    assert detectable_from_share(0.5, 2) is None
    assert detectable_from_share(0.5, 1) is None
    all_right = detectable_from_share(1.0, 100)
    assert all_right is not None
    assert 0 < all_right < 0.1


def test_too_few_discordant_pairs_show_nothing():
    assert detectable_between_pairs(Discordant(0, 0, 100)) is None
    assert detectable_between_pairs(Discordant(2, 1, 100)) is None
    assert detectable_from_error(1.0) == pytest.approx(2.8016, abs=1e-4)


def means(values: np.ndarray, clusters: np.ndarray | None = None) -> Scores:
    """Scores of a single metric, the mean."""
    outcomes, outcome_of = distinct(np.column_stack([values, np.ones(len(values))]))
    return Scores(
        outcomes=outcomes,
        outcome_of=outcome_of,
        metrics={"mean": lambda sums: sums[..., 0] / sums[..., 1]},
        clusters=clusters,
    )


@pytest.mark.parametrize("num_kinds", [3, 10**9])
def test_the_bootstrap_is_scipy_s_within_its_error(num_kinds):
    """Both ways of drawing: as multinomial counts, and one by one."""
    generator = np.random.default_rng(2)
    values = generator.integers(0, num_kinds, 400) / num_kinds
    resampled = resample([means(values)])
    assert resampled is not None
    expected = stats.bootstrap(
        (values,), np.mean, method="percentile", n_resamples=20_000, rng=generator
    )
    interval = expected.confidence_interval
    drawn = resampled.values(0, "mean")
    assert percentiles(drawn) == pytest.approx(
        (interval.low, interval.high), abs=0.2 * expected.standard_error
    )
    assert drawn.std(ddof=1) == pytest.approx(expected.standard_error, rel=0.06)


def test_a_paired_bootstrap_is_scipy_s_within_its_error():
    generator = np.random.default_rng(3)
    before = generator.random(150)
    after = 0.7 * before + 0.3 * generator.random(150) + 0.02

    def difference(first: Any, second: Any, axis: int = -1) -> Any:
        return second.mean(axis) - first.mean(axis)

    expected = stats.bootstrap(
        (before, after),
        difference,
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=generator,
    )
    resampled = compare(means(before), means(after))
    assert resampled is not None
    result = paired_test(resampled, 0, 1, "mean")
    interval = expected.confidence_interval
    assert (result["low"], result["high"]) == pytest.approx(
        (interval.low, interval.high), abs=0.2 * expected.standard_error
    )
    assert result["difference"] == pytest.approx(after.mean() - before.mean())
    error = 2.8016 * expected.standard_error
    assert detectable(resampled, 0, 1, "mean") == pytest.approx(error, rel=0.06)


def test_examples_of_a_cluster_are_drawn_together():
    """40 clusters of 25 equal examples are worth 40 examples."""
    generator = np.random.default_rng(4)
    of_clusters = generator.random(40)
    clusters = np.repeat(np.arange(40), 25)
    resampled = resample([means(np.repeat(of_clusters, 25), clusters)])
    assert resampled is not None
    error = of_clusters.std() / math.sqrt(40)
    assert resampled.values(0, "mean").std() == pytest.approx(error, rel=0.06)
    apart = resample([means(np.repeat(of_clusters, 25))])
    assert apart is not None
    assert apart.values(0, "mean").std() == pytest.approx(error / 5, rel=0.06)


def test_clusters_of_either_system_count():
    clusters = np.repeat(np.arange(10), 5)
    values = np.random.default_rng(5).random(50)
    first = compare(means(values, clusters), means(values / 2))
    second = compare(means(values), means(values / 2, clusters))
    assert first is not None
    assert second is not None
    for system in (0, 1):
        assert (first.values(system, "mean") == second.values(system, "mean")).all()


def test_few_examples_give_no_interval():
    assert resample([means(np.ones(1))]) is None
    assert resample([means(np.random.default_rng(0).random(8), np.zeros(8, np.int64))]) is None
    constant = resample([means(np.ones(9))])
    assert constant is not None
    assert percentiles(constant.values(0, "mean")) is None
    assert percentiles(np.array([np.nan, np.nan])) is None
    assert percentiles(np.array([np.nan, 1.0, 2.0])) is not None


def test_the_bootstrap_s_p_value():
    assert p_value(np.zeros(NUM_RESAMPLES)) == 1.0
    assert p_value(np.ones(1999)) == 2 / 2000
    assert p_value(np.r_[-np.ones(99), np.ones(1900)]) == pytest.approx(0.1)
    assert p_value(np.array([np.nan])) == 1.0
    # A difference that leaves 0 just outside of the interval.
    differences = np.random.default_rng(1).normal(2.1, 1, 2000)
    low, _ = percentiles(differences) or (0, 0)
    assert (p_value(differences) < 0.05) == (low > 0)


def test_few_pairs_cannot_show_more_than_a_sign_test():
    before, after = means(np.zeros(5)), means(np.ones(5))
    resampled = compare(before, after)
    assert resampled is not None
    assert paired_test(resampled, 0, 1, "mean")["p"] == stats.binomtest(5, 5).pvalue == 0.0625
    clusters = np.array([0, 0, 1, 1, 2])
    assert smallest_p_value(means(np.zeros(5), clusters), after, "mean") == 0.25
    assert smallest_p_value(before, before, "mean") == 1.0


def test_resamples_are_the_same_every_time():
    values = np.random.default_rng(6).random(30)
    first, second = resample([means(values)]), resample([means(values)])
    assert first is not None
    assert second is not None
    assert (first.sums[0] == second.sums[0]).all()


def test_bleu_s_test_is_sacrebleu_s(monkeypatch):
    generator = np.random.default_rng(7)
    words = list("abcdefg")
    texts = [" ".join(generator.choice(words, 8)) for _ in range(20)]
    before = [(" ".join(generator.choice(words, 8)), [text]) for text in texts]
    after = [(text[:9] + " z z", [text, "a b"]) for text in texts]
    before = [(guess, [text, "a b"]) for guess, (text,) in before]
    hypotheses = [[guess for guess, _ in pairs] for pairs in (before, after)]
    systems = [("Baseline", hypotheses[0]), ("New", hypotheses[1])]
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    streams = [texts, ["a b"] * 20]
    _, expected = PairedTest(systems, {"BLEU": BLEU()}, streams, test_type="bs")()
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    unanswerable = [("a", [])]
    result = bleu_p_value(before + unanswerable, after + unanswerable)
    assert result == expected["BLEU"][1].p_value
    assert os.environ["SACREBLEU_SEED"] == "99"


def test_answers_are_aligned_by_row_or_id():
    before = [{"id": "b", "label": "x"}, {"id": "a", "label": "y"}]
    after = [{"id": "a", "label": "y"}, {"id": "c", "label": "y"}, {"id": "b", "label": "x"}]
    result = positions(before, after)
    assert result is not None
    assert result.tolist() == [2, 0]
    assert positions(after, before) is None  # c was not asked
    assert positions(before, [{**record, "label": "x"} for record in after]) is None
    assert positions([{"id": "a"}, {"id": "a"}], after) is None
    assert positions([{"prediction": "a"}], [{"prediction": "a"}]) is None
    assert positions([], after) is None
    by_row = positions([{"id": 3, "row": 7}], [{"id": "x", "row": 5}, {"id": "y", "row": 7}])
    assert by_row is not None
    assert by_row.tolist() == [1]
