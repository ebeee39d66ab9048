"""Warnings about the scores of answers that mean less than they seem to."""

from collections.abc import Mapping
from typing import Any

DIFFERENCE = 0.005
"""Smallest difference that counts: smaller ones do not show in the two decimals of a report."""


def diagnose(metrics: Mapping[str, Any]) -> list[str]:
    """Returns, as clauses, what is suspicious about the metrics of one split."""
    if "never_answer" not in metrics:
        return []
    has_threshold = "best_exact" in metrics  # generated answers have none
    findings = _at_thresholds(metrics) if has_threshold else _of_generated(metrics)
    if metrics.get("HasAns_f1", 100.0) < 1:
        findings.append(
            f"HasAns_f1 is {metrics['HasAns_f1']:.2f} of 100: the questions that have an answer "
            f"are answered wrongly"
        )
    ratio = metrics.get("length_ratio", 1.0)
    if not 0.5 <= ratio <= 2:
        findings.append(
            f"predictions have {ratio:.1f} times the words of the gold answers; their length alone "
            f"makes them wrong"
        )
    return findings


def _at_thresholds(metrics: Mapping[str, Any]) -> list[str]:
    findings: list[str] = []
    never, best, exact = (
        metrics[name] for name in ("never_answer", "best_exact", "exact_at_threshold")
    )
    if 0 < never < 100 and best < never + DIFFERENCE:
        findings.append(
            f"best_exact {best:.2f} at the threshold {metrics['best_exact_thresh']} is that of "
            f"never answering, {never:.2f}; the answers are worth nothing"
        )
    if exact < never - DIFFERENCE:
        findings.append(
            f"exact_at_threshold {exact:.2f} is below never answering, {never:.2f}; questions "
            f"without an answer are answered"
        )
    return findings


def _of_generated(metrics: Mapping[str, Any]) -> list[str]:
    never = metrics["never_answer"]
    if not 0 < never < 100 or metrics["f1"] >= never + DIFFERENCE:
        return []
    return [f"f1 {metrics['f1']:.2f} is not above never answering, {never:.2f}"]
