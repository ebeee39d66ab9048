"""Differences that could be luck: within the interval of a test, or within the spread of seeds."""

from collections.abc import Mapping, Sequence
from statistics import stdev
from typing import Any, cast

from trainer.metrics.numbers import finite
from trainer.report.diagnosis.measured import deciding, mapping
from trainer.report.recorded import RecordedRun
from trainer.report.statistics.closed_forms import LEVEL
from trainer.report.statistics.evidence import AT_THRESHOLD
from trainer.tasks.finding import Finding

FEWEST_ARTICLES = 10
"""Articles from which resampling them shows how far others would differ."""


def about_significance(run: RecordedRun) -> list[Finding]:
    """Returns whether the deciding metric differs from the baseline by less than luck explains, or
    in the wrong direction; needs the key `statistics` of the results."""
    metric, more_is_better = deciding(run)
    metric = AT_THRESHOLD.get(metric, metric)
    findings: list[Finding] = []
    for split in ("test", "validation"):
        statistics = mapping(run.results, "statistics", split)
        tests: Any = statistics.get("tests")
        for test in cast(list[Any], tests) if isinstance(tests, list) else []:
            values = mapping(test)
            before_training = values.get("before") != "majority"
            if before_training and values.get("metric") == metric:
                finding = _of_test(values, metric, more_is_better)
                findings += [] if finding is None else [_on(finding, split, statistics)]
        findings += _few_articles(statistics, split)
        if statistics:
            break  # the test says more than the validation split, by which the step was chosen
    return findings


def seeds_disagree(metric: str, values: Sequence[float], difference: float) -> Finding | None:
    """Returns a finding if runs that differ only in their seed differ by more than an effect.

    `values` are the metric of each seed, and `difference` is that of their mean to the baseline or
    to the runs they are compared with. The spread is the sample standard deviation; None for a
    single value.
    """
    known = [value for value in values if finite(value) is not None]
    if len(known) < 2 or finite(difference) is None:
        return None
    spread = stdev(known)
    if spread == 0 or spread < abs(difference):
        return None
    return Finding(
        code="seeds-disagree",
        message=f"{metric} differs between {len(known)} seeds by a standard deviation of "
        f"{spread:.4f}, and from what it is compared with by {abs(difference):.4f}",
        advice="train more seeds, or evaluate on more examples",
        figures={"spread": spread, "difference": difference, "seeds": len(known)},
    )


def _few_articles(statistics: Mapping[str, Any], split: str) -> list[Finding]:
    number = finite(statistics.get("num_clusters"))
    if number is None or number >= FEWEST_ARTICLES:
        return []
    return [
        Finding(
            code="few-articles",
            message=f"the questions are of {number:.0f} articles or passages, too few for intervals"
            " and tests by resampling them",
            advice="measure on questions of more articles",
            figures={"articles": number},
            split=split,
        )
    ]


def _of_test(test: Mapping[str, Any], metric: str, more_is_better: bool) -> Finding | None:
    difference, p = finite(test.get("difference")), finite(test.get("p_adjusted"))
    p = finite(test.get("p")) if p is None else p
    if difference is None or p is None:
        return None
    columns = f"from {test.get('before')} to {test.get('after')}".replace("zero_shot", "zero-shot")
    figures = {"difference": difference, "p": p}
    if p >= LEVEL:
        change = f"the change of {metric} {columns}, {difference:+.4f}, could be luck"
        return Finding(
            code="could-be-luck",
            message=f"{change} (p = {p:.2f})" if difference else f"no change of {metric} {columns}",
            advice="evaluate on more examples, or train more seeds",
            figures=figures,
        )
    if (difference > 0) != more_is_better:
        return Finding(
            code="worse-than-before",
            message=f"{metric} is worse {columns}, by {abs(difference):.4f} (p = {p:.2g})",
            advice="lower optimizer.learning_rate, or check that the labels mean what they did",
            figures=figures,
        )
    return None


def _on(finding: Finding, split: str, statistics: Mapping[str, Any]) -> Finding:
    """Returns the finding on a split, with the number of its examples."""
    number = finite(statistics.get("num_examples"))
    figures = {**finding.figures, **({} if number is None else {"examples": number})}
    of = "" if number is None else f" on {number:,.0f} examples"
    return Finding(
        code=finding.code,
        message=f"{finding.message}{of}",
        advice=finding.advice,
        figures=figures,
        split=split,
        severity=finding.severity,
    )
