"""Rows that occur twice: in training and in a split that measures it, or twice in training."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.doctor.finding import Finding
from trainer.recipe.schema import Recipe

if TYPE_CHECKING:
    from datasets import Dataset

    from trainer.assembly.inputs import Inputs

MANY_SHARED = 0.01
"""Share of the rows of a split that occur in training from which its metrics are doubtful."""
MANY_REPEATED = 0.05
SHOWN = 3


def about_repeats(recipe: Recipe, inputs: "Inputs") -> Iterator[Finding]:
    """Yields how many rows of each other split occur in training, exactly or if only letters and
    digits count, with the numbers of the first, and how many rows of training repeat another."""
    from trainer.assembly.columns_read import identifying_columns
    from trainer.data.overlap import row_hashes

    rows: dict[str, Any] = {name: split.rows for name, split in inputs.splits.items()}
    columns = identifying_columns(rows, recipe)
    if not columns:
        return
    exact = {name: row_hashes(part, columns) for name, part in rows.items()}
    loose = {name: row_hashes(part, columns, normalised=True) for name, part in rows.items()}
    for name in rows:
        if name != "train":
            yield from _shared(name, rows, exact, loose)
    hashes = exact["train"][exact["train"] != 0]
    repeated = len(hashes) - len(np.unique(hashes))
    if repeated > MANY_REPEATED * len(hashes):
        yield Finding(
            "repeated-rows",
            "note",
            f"{repeated:,} of {len(hashes):,} train rows repeat the text of an earlier one",
            "remove them, unless they are meant to weigh more",
            {"rows": repeated, "of": len(hashes)},
        )


def _shared(
    name: str,
    rows: "dict[str, Dataset]",
    exact: dict[str, np.ndarray],
    loose: dict[str, np.ndarray],
) -> Iterator[Finding]:
    same = np.isin(exact[name], exact["train"][exact["train"] != 0])
    alike = same | np.isin(loose[name], loose["train"][loose["train"] != 0])
    total, indices = len(alike), np.flatnonzero(alike)
    if not len(indices):
        yield Finding("no-overlap", "fine", f"none of {total:,} {name} rows occurs in training")
        return
    pairs = [
        _pair(int(index), name, rows, exact if same[index] else loose) for index in indices[:SHOWN]
    ]
    shown = ", ".join(f"{row} = train {train}" for row, train in pairs)
    number, share = int(same.sum()), len(indices) / total
    yield Finding(
        "seen-in-training",
        "warning" if share >= MANY_SHARED else "note",
        f"{number:,} of {total:,} {name} rows occur in training, {len(indices):,} if only letters "
        f"and digits count ({share:.1%}): {name} row{'s' * (len(pairs) > 1)} {shown}"
        + " …"
        * (len(indices) > SHOWN),
        f"remove them from train or from {name}: its metrics would count what was memorised",
        {"exact": number, "normalised": len(indices), "of": total, "rows": pairs},
    )


def _pair(
    index: int, name: str, rows: "dict[str, Dataset]", hashes: dict[str, np.ndarray]
) -> tuple[int, int]:
    """Returns the numbers of a row and of the first row of training that has the same hash."""
    from trainer.data.sources import row_number

    train = int(np.flatnonzero(hashes["train"] == hashes[name][index])[0])
    return row_number(rows[name], index), row_number(rows["train"], train)
