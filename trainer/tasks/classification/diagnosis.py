"""Findings about a classifier's metrics that mean less than they seem to."""

import math
from collections.abc import Mapping
from typing import Any

from trainer.metrics.numbers import finite
from trainer.tasks.finding import Finding
from trainer.wording import excerpt, listed

GUESSING = 0.005
"""Largest distance of a loss from ln(classes) that counts as guessing."""
ROUNDING = 0.0005
"""Half a unit of the third decimal, to which reports round."""


def diagnose(metrics: Mapping[str, Any]) -> list[Finding]:
    """Returns what is suspicious about the metrics of one split, without naming the split."""
    classes = _classes(metrics)
    if not classes:
        return _without_classes(metrics)
    num_examples = sum(counts["support"] for counts in classes.values())
    if not num_examples:
        return []
    findings: list[Finding] = []
    predicted = [label for label, counts in classes.items() if counts["predicted"]]
    if len(predicted) == 1 and len(classes) > 1:
        findings.append(_one_class(f"every example is predicted as {excerpt(predicted[0])!r}"))
    absent = [label for label, counts in classes.items() if not counts["support"]]
    if absent:
        findings.append(_absent(absent, classes))
    majority = max(classes, key=lambda label: classes[label]["support"])
    share = classes[majority]["support"] / num_examples
    # A difference of less than two standard errors from the majority's share could be luck.
    error = math.sqrt(share * (1 - share) / num_examples)
    accuracy = finite(metrics.get("accuracy"))
    if accuracy is not None and accuracy <= share + 2 * error:
        findings.append(
            Finding(
                code="majority-share",
                message=f"accuracy {accuracy:.4f} is not above always answering "
                f"{excerpt(majority)!r}, {share:.4f}, by two standard errors ({error:.4f} each)",
                advice="train longer, raise the learning rate, or evaluate on more examples",
                figures={"accuracy": accuracy, "share": share, "error": error},
            )
        )
    return [*findings, *_guessing(metrics, len(classes))]


def _classes(metrics: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Returns the number of examples (`support`) and of predictions of each class; empty if the
    metrics do not say them."""
    per_class: Any = metrics.get("per_class")
    if not isinstance(per_class, Mapping):
        return {}
    classes: dict[str, dict[str, float]] = {}
    scores: Any
    for label, scores in per_class.items():
        if not isinstance(scores, Mapping):
            return {}
        support, predicted = finite(scores.get("support")), finite(scores.get("predicted"))
        if support is None or predicted is None or min(support, predicted) < 0:
            return {}
        classes[str(label)] = {"support": support, "predicted": predicted}
    return classes


def _one_class(message: str, **figures: float) -> Finding:
    return Finding(
        code="one-class",
        message=message,
        advice="lower the learning rate or warm up longer; if the classes are uneven, set "
        "task.class_weights: balanced",
        figures=figures,
    )


def _absent(absent: list[str], classes: Mapping[str, Mapping[str, float]]) -> Finding:
    never = sum(not classes[label]["predicted"] for label in absent)
    return Finding(
        code="absent-label",
        message=f"no example has the label {listed(absent)}; macro averages are over the classes "
        f"that occur or are predicted, {len(classes) - never} of {len(classes)}",
        advice="check task.labels and how the split was made",
        figures={"absent": len(absent), "classes": len(classes)},
    )


def _without_classes(metrics: Mapping[str, Any]) -> list[Finding]:
    """Returns what the scores of two classes say without counts.

    If accuracy equals precision and recall is 1, there is no negative prediction.
    """
    accuracy, precision, recall = (
        finite(metrics.get(name)) for name in ("accuracy", "precision", "recall")
    )
    if precision is None or recall is None:
        return []
    findings = _guessing(metrics, 2)
    if accuracy is None or accuracy >= 1 - ROUNDING or abs(recall - 1) > ROUNDING:
        return findings
    if abs(accuracy - precision) > ROUNDING:
        return findings
    found = _one_class(
        f"recall {recall:.4f} with accuracy {accuracy:.4f} = precision: every example is predicted "
        f"as the second class, whose share is {precision:.4f}",
        accuracy=accuracy,
        precision=precision,
        recall=recall,
    )
    return [found, *findings]


def _guessing(metrics: Mapping[str, Any], num_classes: int) -> list[Finding]:
    loss, guessing = finite(metrics.get("loss")), math.log(num_classes)
    if loss is None or abs(loss - guessing) >= GUESSING:
        return []
    return [
        Finding(
            code="guessing-loss",
            message=f"the loss {loss:.4f} is that of guessing, ln {num_classes} = {guessing:.4f}",
            advice="check that texts and labels belong together, and try another learning rate",
            figures={"loss": loss, "guessing": guessing, "classes": num_classes},
        )
    ]
