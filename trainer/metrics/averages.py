"""Macro averages over classes, equal to scikit-learn's when it is given no `labels`."""

from collections.abc import Mapping
from typing import Any, cast

OF_CLASSES = ("precision", "recall", "f1")


def macro_averages(per_class: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean precision, recall and F1 over the classes that occur or are predicted.

    Classes that neither occur in the split nor are predicted are left out, as in scikit-learn;
    earlier versions of this package counted them as 0.
    """
    present = [scores for scores in per_class.values() if scores["support"] or scores["predicted"]]
    return {
        f"{name}_macro": sum(float(scores[name]) for scores in present) / max(len(present), 1)
        for name in OF_CLASSES
    }


def with_macro_averages(metrics: Any) -> Any:
    """Returns `metrics` with macro averages recomputed from `per_class`, at any depth of nesting.

    For results of earlier versions, which averaged differently (see `macro_averages`).
    """
    if isinstance(metrics, list):
        return [with_macro_averages(item) for item in cast(list[Any], metrics)]
    if not isinstance(metrics, dict):
        return metrics
    values = cast(dict[str, Any], metrics)
    if "f1_macro" in values and _are_counts(values.get("per_class")):
        return {**values, **macro_averages(values["per_class"])}
    return {key: with_macro_averages(value) for key, value in values.items()}


def _are_counts(per_class: Any) -> bool:
    """Returns whether a value has the scores of each class, whatever a file holds."""
    needed = {"support", "predicted", *OF_CLASSES}
    return isinstance(per_class, dict) and all(
        isinstance(scores, dict) and scores.keys() >= needed
        for scores in cast(dict[str, Any], per_class).values()
    )
