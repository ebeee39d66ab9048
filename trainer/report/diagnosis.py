"""Where numbers cannot be right, or mean less than they seem: one sentence each."""

import math
from typing import Any


def diagnose(metrics: dict[str, Any], split: str) -> list[str]:
    """Returns what is suspicious about the metrics of a trained model on one split."""
    classes: dict[str, dict[str, float]] = metrics.get("per_class", {})
    findings: list[str] = []
    total = sum(one["support"] for one in classes.values())
    if not total:
        return findings
    answered = [label for label, one in classes.items() if one["predicted"]]
    if len(answered) == 1 and len(classes) > 1:
        findings.append(
            f"{split}: every example is answered {answered[0]!r}; no other class was learned"
        )
    majority, share = max(
        ((label, one["support"] / total) for label, one in classes.items()), key=lambda one: one[1]
    )
    # Half a standard error above the majority share could be luck; two could hardly be.
    error = math.sqrt(share * (1 - share) / total)
    if metrics["accuracy"] <= share + 2 * error:
        findings.append(
            f"{split}: accuracy {metrics['accuracy']:.4f} is not above always answering "
            f"{majority!r}, {share:.4f}, by two standard errors ({error:.4f} each)"
        )
    if abs(metrics["loss"] - math.log(len(classes))) < 0.005:
        findings.append(
            f"{split}: the loss {metrics['loss']:.4f} is that of guessing, ln {len(classes)} = "
            f"{math.log(len(classes)):.4f}"
        )
    return findings
