"""Metrics that cannot be right, or that mean less than they seem to: a sentence for each."""

import math
from typing import Any

from trainer.wording import listed


def diagnose(metrics: dict[str, Any], split: str) -> list[str]:
    """Returns what is suspicious in the metrics of a model on one split, a sentence each."""
    findings: list[str] = []
    if "per_class" in metrics:
        findings += _of_classes(metrics)
    if "never_answer" in metrics:
        findings += _of_answers(metrics)
    if "next_sentence_accuracy" in metrics:
        findings += _of_pairs(metrics)
    if metrics.get("generated_words") == 0:
        findings.append("every generated answer is empty")
    return [f"{split}: {finding}" for finding in findings]


def _of_classes(metrics: dict[str, Any]) -> list[str]:
    classes: dict[str, dict[str, float]] = metrics["per_class"]
    findings: list[str] = []
    total = sum(values["support"] for values in classes.values())
    if not total:
        return findings
    answered = [label for label, values in classes.items() if values["predicted"]]
    if len(answered) == 1 and len(classes) > 1:
        findings.append(
            f"every example is answered {answered[0]!r}, and no other class is predicted"
        )
    absent = [label for label, values in classes.items() if not values["support"]]
    if absent:
        never = sum(not classes[label]["predicted"] for label in absent)
        findings.append(
            f"no example has the label {listed(absent)}; macro averages are over the classes that "
            f"occur or are predicted, {len(classes) - never} of {len(classes)}"
        )
    majority, share = max(
        ((label, values["support"] / total) for label, values in classes.items()),
        key=lambda pair: pair[1],
    )
    # Less than two standard errors above the share of the majority could be luck.
    error = math.sqrt(share * (1 - share) / total)
    if metrics["accuracy"] <= share + 2 * error:
        findings.append(
            f"accuracy {metrics['accuracy']:.4f} is not above always answering "
            f"{majority!r}, {share:.4f}, by two standard errors ({error:.4f} each)"
        )
    if "loss" in metrics and abs(metrics["loss"] - math.log(len(classes))) < 0.005:
        findings.append(
            f"the loss {metrics['loss']:.4f} is that of guessing, ln {len(classes)} = "
            f"{math.log(len(classes)):.4f}"
        )
    return findings


def _of_pairs(metrics: dict[str, Any]) -> list[str]:
    accuracy, error = metrics["next_sentence_accuracy"], 0.5 / math.sqrt(metrics["num_pairs"])
    if accuracy > 0.5 + 2 * error:
        return []
    return [
        f"next_sentence_accuracy {accuracy:.4f} is not above guessing, 0.5, by two standard errors "
        f"({error:.4f} each); nothing was learned from the pairs yet"
    ]


def _at_thresholds(metrics: dict[str, Any], never: float) -> list[str]:
    findings: list[str] = []
    best, exact = metrics["best_exact"], metrics["exact_at_threshold"]
    if 0 < never < 100 and best < never + 0.005:  # two decimals show no difference
        findings.append(
            f"best_exact {best:.2f} at the threshold {metrics['best_exact_thresh']} is that of "
            f"never answering, {never:.2f}; the answers are worth nothing"
        )
    if exact < never - 0.005:
        findings.append(
            f"exact_at_threshold {exact:.2f} is below never answering, {never:.2f}; questions "
            f"without an answer are answered"
        )
    return findings


def _without_threshold(metrics: dict[str, Any], never: float) -> list[str]:
    """Returns the findings on generated answers, which have no threshold."""
    if not 0 < never < 100 or metrics["f1"] >= never + 0.005:
        return []
    return [f"f1 {metrics['f1']:.2f} is not above never answering, {never:.2f}"]


def _of_answers(metrics: dict[str, Any]) -> list[str]:
    never = metrics["never_answer"]
    findings = (
        _at_thresholds(metrics, never)
        if "best_exact" in metrics
        else _without_threshold(metrics, never)
    )
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
