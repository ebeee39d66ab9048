"""Warnings about a classifier's metrics that mean less than they seem to."""

import math
from collections.abc import Mapping
from typing import Any

from trainer.wording import listed


def diagnose(metrics: Mapping[str, Any]) -> list[str]:
    """Returns, as clauses, what is suspicious about the metrics of one split."""
    classes: dict[str, dict[str, float]] = metrics.get("per_class", {})
    num_examples = sum(counts["support"] for counts in classes.values())
    if not num_examples:
        return []
    findings: list[str] = []
    predicted = [label for label, counts in classes.items() if counts["predicted"]]
    if len(predicted) == 1 and len(classes) > 1:
        findings.append(f"every example is predicted as {predicted[0]!r}")
    absent = [label for label, counts in classes.items() if not counts["support"]]
    if absent:
        never = sum(not classes[label]["predicted"] for label in absent)
        findings.append(
            f"no example has the label {listed(absent)}; macro averages are over the classes that "
            f"occur or are predicted, {len(classes) - never} of {len(classes)}"
        )
    majority = max(classes, key=lambda label: classes[label]["support"])
    share = classes[majority]["support"] / num_examples
    # A difference of less than two standard errors from the majority's share could be luck.
    error = math.sqrt(share * (1 - share) / num_examples)
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
