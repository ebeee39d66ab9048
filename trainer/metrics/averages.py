"""Averages over classes, as scikit-learn takes them unless it is told the labels."""

from collections.abc import Mapping
from typing import Any, cast

OF_CLASSES = ("precision", "recall", "f1")


def macro_averages(per_class: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Returns the mean of precision, recall and F1 over the classes that occur in a split or are
    predicted there, as scikit-learn's default does.

    Those that do neither are left out; earlier versions of this package counted them as 0.
    """
    present = [one for one in per_class.values() if one["support"] or one["predicted"]]
    return {
        f"{name}_macro": sum(float(one[name]) for one in present) / max(len(present), 1)
        for name in OF_CLASSES
    }


def with_macro_averages(metrics: Any) -> Any:
    """Returns metrics, in whatever dicts and lists they lie, with the macro averages of today."""
    if isinstance(metrics, list):
        return [with_macro_averages(one) for one in cast(list[Any], metrics)]
    if not isinstance(metrics, dict):
        return metrics
    found = cast(dict[str, Any], metrics)
    if "f1_macro" in found and isinstance(found.get("per_class"), dict):
        return {**found, **macro_averages(found["per_class"])}
    return {key: with_macro_averages(value) for key, value in found.items()}
