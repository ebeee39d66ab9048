"""Classes: labels that do not occur, and how the rows are spread over the others."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from trainer.doctor.finding import Finding
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from trainer.assembly.inputs import Inputs

RARE, DOMINANT = 0.01, 0.95
"""Shares of the train rows below and above which a class is reported."""
SHOWN = 6


def about_classes(inputs: "Inputs") -> Iterator[Finding]:
    """Yields the labels of a classification that do not occur, and the shares of the others."""
    from trainer.tasks.classification.task import Classification

    task = inputs.task
    if not isinstance(task, Classification):
        return
    counts = {
        name: np.bincount(split.array("label"), minlength=len(task.labels))
        for name, split in inputs.splits.items()
    }
    for name in counts:
        yield from _absent(name, counts, task.labels)
    train = counts["train"]
    shares = train / train.sum()
    order = np.argsort(-shares, kind="stable")
    figures = {task.labels[index]: int(train[index]) for index in order}
    shown = ", ".join(
        f"{shares[index]:.1%} {excerpt(task.labels[index], 40)}" for index in order[:SHOWN]
    )
    rest = f" and {len(order) - SHOWN:,} more" if len(order) > SHOWN else ""
    yield Finding("classes", "fine", f"train rows: {shown}{rest}", None, figures)
    rare = [task.labels[index] for index in order if 0 < shares[index] < RARE]
    if rare:
        yield Finding(
            "rare-class",
            "warning",
            f"fewer than {RARE:.0%} of the train rows have each of these labels, which the model "
            f"may never answer: {listed(rare)}",
            "set task.class_weights: balanced, or measure f1_macro",
            {label: figures[label] for label in rare},
        )
    if shares.max() > DOMINANT:
        label = task.labels[int(order[0])]
        yield Finding(
            "dominant-class",
            "warning",
            f"{shares.max():.1%} of the train rows have the label {excerpt(label, 60)}: answering "
            f"it always has that accuracy",
            "set evaluation.metric: f1_macro, and task.class_weights: balanced",
            {label: figures[label]},
        )


def _absent(name: str, counts: dict[str, np.ndarray], labels: tuple[str, ...]) -> Iterator[Finding]:
    """Yields the labels that no row of a split has."""
    absent = [index for index, count in enumerate(counts[name]) if not count]
    if not absent:
        return
    asked = [
        split
        for split in counts
        if name == "train" and split != "train" and counts[split][absent].any()
    ]
    measured = (
        f", which {' and '.join(asked)} rows have: no answer to them is right" if asked else ""
    )
    yield Finding(
        "absent-label",
        "warning" if name == "train" else "note",
        f"no {name} row has the label{'s' * (len(absent) > 1)} "
        f"{listed(labels[index] for index in absent)}{measured}",
        "check task.labels and data.columns.label" if name == "train" else None,
        {"labels": [labels[index] for index in absent], "split": name},
    )
