"""Findings about the scores of answers that mean less than they seem to."""

from collections.abc import Mapping
from typing import Any

from trainer.metrics.numbers import finite
from trainer.tasks.finding import Finding

DIFFERENCE = 0.005
"""Smallest difference that counts: smaller ones do not show in the two decimals of a report."""
TRAIN_ON = "train longer, raise the learning rate, and check that the answers are in their contexts"


def diagnose(metrics: Mapping[str, Any]) -> list[Finding]:
    """Returns what is suspicious about the metrics of one split, without naming the split."""
    never = never_answer(metrics)
    findings: list[Finding] = []
    if finite(metrics.get("best_exact")) is not None:
        findings += _at_thresholds(metrics, never)
    elif never is not None:  # generated answers have no threshold
        findings += _of_generated(metrics, never)
    answered = finite(metrics.get("HasAns_f1"))
    if answered is not None and answered < 1:
        findings.append(
            Finding(
                code="answered-wrongly",
                message=f"HasAns_f1 is {answered:.2f} of 100: the questions that have an answer "
                f"are answered wrongly",
                advice=TRAIN_ON,
                figures={"HasAns_f1": answered},
            )
        )
    ratio = finite(metrics.get("length_ratio"))
    if ratio is not None and not 0.5 <= ratio <= 2:
        findings.append(
            Finding(
                code="answer-length",
                message=f"predictions have {ratio:.1f} times the words of the gold answers; their "
                f"length alone makes them wrong",
                advice="lower task.max_answer_length or, for generated answers, max_new_tokens",
                figures={"length_ratio": ratio},
            )
        )
    return findings


def never_answer(metrics: Mapping[str, Any]) -> float | None:
    """Returns the score of a model that answers no question; None if the metrics do not say."""
    never = finite(metrics.get("never_answer"))
    unanswerable, total = finite(metrics.get("NoAns_total")), finite(metrics.get("total"))
    if never is None and unanswerable is not None and total:
        never = 100 * unanswerable / total
    return never


def _at_thresholds(metrics: Mapping[str, Any], never: float | None) -> list[Finding]:
    best, at_threshold = finite(metrics["best_exact"]), finite(metrics.get("exact_at_threshold"))
    findings: list[Finding] = []
    if never is not None and best is not None and 0 < never < 100 and best < never + DIFFERENCE:
        threshold = metrics.get("best_exact_thresh")
        findings.append(
            Finding(
                code="at-never-answering",
                message=f"best_exact {best:.2f} at the threshold {threshold} is that of never "
                f"answering, {never:.2f}; the answers are worth nothing",
                advice=TRAIN_ON,
                figures={"best_exact": best, "never_answer": never},
            )
        )
    elif best is not None:
        findings += _void_threshold(metrics, best)
    if never is not None and at_threshold is not None and at_threshold < never - DIFFERENCE:
        findings.append(
            Finding(
                code="below-never-answering",
                message=f"exact_at_threshold {at_threshold:.2f} is below never answering, "
                f"{never:.2f}; questions without an answer are answered",
                advice="train longer, or tune the threshold on more validation questions",
                figures={"exact_at_threshold": at_threshold, "never_answer": never},
            )
        )
    return findings


def _void_threshold(metrics: Mapping[str, Any], best: float) -> list[Finding]:
    """Returns whether the best threshold rejects every answer, as it does if a constant stands for
    the probability that there is none."""
    names = ("best_exact_thresh", "NoAns_exact", "exact", "exact_at_threshold")
    threshold, unanswered, exact, at_threshold = (finite(metrics.get(name)) for name in names)
    if threshold != 0 or unanswered != 0 or (exact is not None and exact >= best - DIFFERENCE):
        return []
    if exact is not None and at_threshold is not None and abs(at_threshold - exact) > DIFFERENCE:
        return []  # another threshold rejects some answers and keeps some
    as_answered = "" if exact is None else f" and exact is {exact:.2f}"
    return [
        Finding(
            code="void-threshold",
            message=f"best_exact {best:.2f} is reached at the threshold 0, which rejects every "
            f"answer; without it NoAns_exact is 0.00{as_answered}, below never answering",
            advice="score the answers with the model's probability that there is none, not with a "
            "constant",
            figures={"best_exact": best, **({} if exact is None else {"exact": exact})},
            severity="wrong",
        )
    ]


def _of_generated(metrics: Mapping[str, Any], never: float) -> list[Finding]:
    f1 = finite(metrics.get("f1"))
    if f1 is None or not 0 < never < 100 or f1 >= never + DIFFERENCE:
        return []
    return [
        Finding(
            code="generated-below-never-answering",
            message=f"f1 {f1:.2f} is not above never answering, {never:.2f}",
            advice="let the prompt say how to answer a question that has no answer",
            figures={"f1": f1, "never_answer": never},
        )
    ]
