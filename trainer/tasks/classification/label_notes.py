"""What a reader of the results should know about the labels of a split."""

from collections.abc import Sequence

import numpy as np

from trainer.data.encoded import PreparedSplit
from trainer.data.overlap import num_contradictory, row_hashes
from trainer.tasks.classification.labels import class_names
from trainer.wording import excerpt, listed


def label_notes(
    split: str, prepared: PreparedSplit, labels: Sequence[str], *, column: str, texts: list[str]
) -> list[str]:
    """Returns a sentence for each thing that is unusual about the labels of a split.

    `column` holds the labels, and `texts` are the columns of the texts that they belong to.
    """
    indices = prepared.array("label")
    counts = np.bincount(indices, minlength=len(labels))
    present = [label for label, count in zip(labels, counts, strict=True) if count]
    absent = [label for label, count in zip(labels, counts, strict=True) if not count]
    notes: list[str] = []
    if len(present) == 1:
        notes.append(f"every {split} row has the label {excerpt(present[0])!r}")
    elif absent and split == "train":
        notes.append(f"no train row has the label {listed(absent)}")
    if split == "train":
        hashes = row_hashes(prepared.rows, texts)[prepared.array("row")]
        contradictory = num_contradictory(hashes, indices)
        if contradictory:
            notes.append(
                f"{contradictory:,} train rows repeat the text of another row with a different "
                f"label"
            )
    names = class_names(prepared.rows, column)
    if names is not None and not set(names) & set(labels):
        notes.append(
            f"the classes {listed(names)} of the {split} split share no name with task.labels and "
            f"are matched to it by position: {listed(labels)}"
        )
    if split == "train" and "-1" in labels and len(labels) > 2:
        notes.append(
            f"-1 is a label of {counts[labels.index('-1')]:,} train rows; if -1 means 'no label', "
            f"set data.exclude: {{{column}: [-1]}}"
        )
    return notes
