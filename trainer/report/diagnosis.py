"""Where numbers cannot be right, or mean less than they seem: one sentence each."""

import math
from typing import Any

from trainer.wording import listed


def diagnose(metrics: dict[str, Any], split: str) -> list[str]:
    """Returns what is suspicious about the metrics of a trained model on one split."""
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
    total = sum(one["support"] for one in classes.values())
    if not total:
        return findings
    answered = [label for label, one in classes.items() if one["predicted"]]
    if len(answered) == 1 and len(classes) > 1:
        findings.append(f"every example is answered {answered[0]!r}; no other class ever is")
    absent = [label for label, one in classes.items() if not one["support"]]
    if absent:
        never = sum(not classes[label]["predicted"] for label in absent)
        findings.append(
            f"no example is of {listed(absent)}; macro averages are over the classes that occur or "
            f"are answered, {len(classes) - never} of {len(classes)}"
        )
    majority, share = max(
        ((label, one["support"] / total) for label, one in classes.items()), key=lambda one: one[1]
    )
    # Half a standard error above the majority share could be luck; two could hardly be.
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
        f"({error:.4f} each); the pairs have taught nothing yet"
    ]


def _at_thresholds(metrics: dict[str, Any], never: float) -> list[str]:
    findings: list[str] = []
    best, exact = metrics["best_exact"], metrics["exact_at_threshold"]
    if (
        0 < never < 100 and best < never + 0.005
    ):  # where a figure of two decimals shows no difference
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


def _as_said(metrics: dict[str, Any], never: float) -> list[str]:
    """Of generated answers, which have no threshold."""
    if not 0 < never < 100 or metrics["f1"] >= never + 0.005:
        return []
    return [f"f1 {metrics['f1']:.2f} is not above never answering, {never:.2f}"]


def _of_answers(metrics: dict[str, Any]) -> list[str]:
    never = metrics["never_answer"]
    findings = (
        _at_thresholds(metrics, never) if "best_exact" in metrics else _as_said(metrics, never)
    )
    if metrics.get("HasAns_f1", 100.0) < 1:
        findings.append(
            f"HasAns_f1 is {metrics['HasAns_f1']:.2f} of 100: the questions that have an answer "
            f"are answered wrongly"
        )
    ratio = metrics.get("length_ratio", 1.0)
    if not 0.5 <= ratio <= 2:
        findings.append(
            f"predictions have {ratio:.1f} times the words of the gold answers; answers of such a "
            f"length are not what was asked for"
        )
    return findings
