"""The weight of each class in the loss: as the recipe lists them, or balanced by the train rows."""

from typing import TYPE_CHECKING

import numpy as np

from trainer.errors import ConfigError
from trainer.tasks.classification.labels import index_of, label_indices
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from datasets import Dataset


def class_weights(
    settings: ClassificationSettings, train: "Dataset", column: str, labels: tuple[str, ...]
) -> list[float] | None:
    """Returns the weight of each label in order; None if all weigh the same.

    A balanced weight is rows / (labels * rows of the label), as in scikit-learn. Raises ConfigError
    if the recipe lists another number of weights, or if a label to balance has no rows.
    """
    weights = settings.class_weights
    if weights is None:
        return None
    if weights == "balanced":
        return _balanced_weights(train, column, labels, checked=settings.check_labels)
    if len(weights) != len(labels):
        raise ConfigError(
            f"task.class_weights has {len(weights)} numbers for the {len(labels)} labels "
            f"{listed(labels)}",
            key="task.class_weights",
            value=weights,
        )
    return list(weights)


def _balanced_weights(
    train: "Dataset", column: str, labels: tuple[str, ...], *, checked: bool
) -> list[float]:
    by_label = label_indices(train, column, labels, checked=checked)
    indices = [index_of(value, by_label, checked=checked) for value in train[column]]
    counts = np.bincount([index for index in indices if index >= 0], minlength=len(labels))
    if not counts.all():
        absent = labels[int(np.argmin(counts))]
        raise ConfigError(
            f"task.class_weights: balanced, but no train row has the label {excerpt(absent)}",
            key="task.class_weights",
            value="balanced",
        )
    return (counts.sum() / (len(labels) * counts)).tolist()
