"""The paragraph in words that opens a report, made of a run's numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trainer.report.markup import plain
from trainer.report.recorded import RecordedRun
from trainer.report.statistics.closed_forms import LEVEL
from trainer.report.statistics.evidence import AT_THRESHOLD
from trainer.tasks.finding import Finding
from trainer.wording import excerpt

QUALITY = (
    *("accuracy", "f1_at_threshold", "f1", "bleu", "next_sentence_accuracy"),
    *("masked_accuracy", "token_accuracy"),
)
"""Metrics that are named beside a loss, the first that was measured."""
LOSSES = ("loss", "perplexity")
"""How the names of metrics begin that are better when smaller and have no interval."""
MOST_CHARACTERS = 200
"""Maximum characters of a finding, which may quote data."""


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """A metric of a split, as sentences speak of it."""

    metric: str
    split: str
    evidence: Mapping[str, Any]
    scale: str | None
    is_better_smaller: bool
    training: str
    """What the run did, as the beginning of a sentence."""

    @property
    def name(self) -> str:
        return f"{self.split} {excerpt(plain(self.metric), 60)}"

    @property
    def columns(self) -> Mapping[str, Any]:
        return self.evidence["metrics"].get(self.metric, {})


def summary(run: RecordedRun, statistics: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """Returns what the run achieved, as plain text of a few sentences.

    It is about the deciding metric on the test split or, without one, on validation, and says
    whether the difference from the baseline may be chance. Of questions, it is about the metric at
    the threshold that validation gives. The worst finding that makes a number
    wrong follows. `statistics` are those of `trainer.report.statistics.evidence`.
    """
    split = next((name for name in ("test", "validation") if name in statistics), None)
    if split is None:
        sentences = ["The run measured neither a validation nor a test split."]
    else:
        sentences = [
            sentence
            for subject in _subjects(run, split, statistics[split])
            for sentence in _about(subject)
        ]
    if split == "validation":
        best = run.results.get("model", "best") == "best"
        flatter = "; the best step was chosen by these numbers, so they flatter" if best else ""
        sentences.append(f"There is no test split{flatter}.")
    wrong = [finding for finding in findings if finding.severity == "wrong"]
    sentences += [f"But {_clause(finding)}." for finding in wrong[:1]]
    return " ".join(sentences)


def _subjects(run: RecordedRun, split: str, evidence: Mapping[str, Any]) -> list[_Subject]:
    """Returns the deciding metric and, if it is a loss, a metric of quality beside it."""
    evaluation = run.recipe["evaluation"]
    chosen: str = evaluation["metric"]
    deciding = AT_THRESHOLD.get(chosen, chosen)
    beside = [name for name in QUALITY if name in evidence["metrics"]][:1]
    metrics = [deciding, *(beside if deciding.startswith(LOSSES) else [])]
    random = run.recipe.get("model", {}).get("initialization") == "random"
    return [
        _Subject(
            metric=metric,
            split=split,
            evidence=evidence,
            scale=run.results["scales"].get(metric),
            is_better_smaller=evaluation.get("mode") == "min" and metric == deciding,
            training="Training" if random else "Fine-tuning",
        )
        for metric in metrics
    ]


def _about(subject: _Subject) -> list[str]:
    columns = subject.columns
    after = columns.get("best") or columns.get("final")
    if after is None:
        return [f"{_capital(subject.name)} was not measured."]
    if "baseline" in columns:
        sentences = [_change(subject, columns["baseline"], after)]
    else:
        value = f"{_number(subject, after['value'])}{_worth(subject, after, None)}"
        sentences = [
            f"After {subject.training.lower()}, {subject.name} is {value}{_beside(subject)}; there "
            f"is no baseline to compare it with."
        ]
    return [*sentences, *_against_majority(subject), *_zero_shot(subject)]


def _change(subject: _Subject, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Returns the sentence about the difference between the baseline and the exported model."""
    test = _test(subject, "baseline")
    difference = after["value"] - before["value"]
    first, last = _number(subject, before["value"]), _number(subject, after["value"])
    worth, aside = _worth(subject, after, test), _aside(subject)
    if test is not None and test["p_adjusted"] >= LEVEL:
        begin = f"{_capital(subject.name)} was {first}{aside} before {subject.training.lower()}"
        if not difference:
            return f"{begin} and still is {last}{worth}: nothing was learned that changes it."
        smallest = subject.evidence["detectable"].get(subject.metric)
        shows = (
            ""
            if smallest is None
            else f", and these examples show only differences from about "
            f"{_number(subject, smallest)}"
        )
        return f"{begin} and is {last} after it{worth}: the difference may be chance{shows}."
    if first == last:
        return f"{subject.training} left {subject.name} at {last}{worth}{_beside(subject)}."
    verb = "raised" if difference > 0 else "lowered"
    sentence = f"{subject.training} {verb} {subject.name} from {first}{aside} to {last}{worth}"
    if (difference > 0) == subject.is_better_smaller:
        return f"{sentence}, which is worse."
    if test is None and after["low"] is not None:
        return f"{sentence}; it is not tested, because no answers of the baseline were kept."
    return f"{sentence}."


def _against_majority(subject: _Subject) -> list[str]:
    """Returns a sentence if the model is not better than the best answer to give unread."""
    words = _majority(subject)
    tests = [test for test in subject.evidence["tests"] if test["before"] == "majority"]
    tests.sort(key=lambda test: test["metric"] != subject.metric)
    if words is None or not tests or subject.is_better_smaller:
        return []
    test = tests[0]
    shown = subject.evidence["metrics"][test["metric"]]
    majority, model = shown["majority"]["value"], shown[test["after"]]["value"]
    scale = "0-1" if test["metric"] == "accuracy" else "0-100"
    values = f"{_scaled(scale, model)} against {_scaled(scale, majority)}; {_tested(test)}"
    if not test["difference"]:
        nothing = ": nothing useful was learned" if test["won"] == 0 else ""
        return [f"Its {test['metric']} of {_scaled(scale, model)} is that of {words}{nothing}."]
    if test["p_adjusted"] >= LEVEL:
        return [f"The model is not shown to be better than {words} ({test['metric']} {values})."]
    if test["difference"] < 0:
        return [f"The model is worse than {words} ({test['metric']} {values})."]
    return []


def _zero_shot(subject: _Subject) -> list[str]:
    """Returns the sentence about the pretrained model that was only prompted."""
    column, test = subject.columns.get("zero_shot"), _test(subject, "zero_shot")
    if column is None:
        return []
    sentence = f"Prompted without training, the model reaches {_number(subject, column['value'])}"
    if test is None:
        return [f"{sentence}."]
    better = "better" if (test["difference"] > 0) != subject.is_better_smaller else "worse"
    by = (
        f"{_number(subject, abs(test['difference']))} {better}"
        if test["difference"]
        else "no better"
    )
    chance = " which may be chance," if test["p_adjusted"] >= LEVEL else ""
    return [
        f"{sentence}; on the same {test['num_examples']:,} examples the trained model is {by},"
        f"{chance} {_tested(test)}."
    ]


def _worth(subject: _Subject, after: Mapping[str, Any], test: Mapping[str, Any] | None) -> str:
    """Returns, in parentheses, the interval of a value, its test and the number of examples."""
    parts: list[str] = []
    if after["low"] is not None:
        low, high = _number(subject, after["low"]), _number(subject, after["high"])
        parts.append(f"95 % interval {low} to {high}")
    elif subject.metric.startswith(LOSSES):
        return " (a mean, for which no interval is computed)"
    num_examples, num_clusters = (
        subject.evidence[name] for name in ("num_examples", "num_clusters")
    )
    tail = [_tested(test)] if test is not None else []
    if num_examples and (parts or tail):
        groups = f" in {num_clusters:,} groups" if num_clusters else ""
        tail.append(f"{num_examples:,} example{'' if num_examples == 1 else 's'}{groups}")
    parts += [", ".join(tail)] if tail else []
    return f" ({'; '.join(parts)})" if parts else ""


def _aside(subject: _Subject) -> str:
    words = _majority(subject)
    if words is None or "majority" not in subject.columns:
        return ""
    return f" ({words}: {_number(subject, subject.columns['majority']['value'])})"


def _beside(subject: _Subject) -> str:
    words = _majority(subject)
    if words is None or "majority" not in subject.columns:
        return ""
    return f"; {words} gives {_number(subject, subject.columns['majority']['value'])}"


def _majority(subject: _Subject) -> str | None:
    words = subject.evidence.get("majority_is")
    return None if words is None else excerpt(plain(words), 80)


def _test(subject: _Subject, before: str) -> Mapping[str, Any] | None:
    """Returns the test of the metric against a column; None if there is none."""
    for test in subject.evidence["tests"]:
        if test["metric"] == subject.metric and test["before"] == before:
            return test
    return None


def _tested(test: Mapping[str, Any]) -> str:
    p, adjusted = test["p"], test["p_adjusted"]
    if adjusted < 0.001:
        return f"{test['method']} p < 0.001"
    corrected = " after Holm's correction" if f"{adjusted:.2g}" != f"{p:.2g}" else ""
    return f"{test['method']} p = {adjusted:.2g}{corrected}"


def _number(subject: _Subject, value: float) -> str:
    return _scaled(subject.scale, value)


def _scaled(scale: str | None, value: float) -> str:
    digits = {"0-1": ".3f", "0-100": ".1f"}
    return f"{value:{digits.get(scale or '', '.4g')}}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _clause(finding: Finding) -> str:
    place = f"on {finding.split}, " if finding.split else ""
    return place + excerpt(plain(finding.message), MOST_CHARACTERS).rstrip(".")
