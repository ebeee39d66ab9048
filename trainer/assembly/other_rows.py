"""Rows other than the run's own, which `evaluate` measures with the run's model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.assembly.python_inputs import as_dataset
from trainer.data.columns import check_columns, column_name, resolve_columns
from trainer.data.files import read_files
from trainer.errors import ConfigError
from trainer.recipe.data import Column
from trainer.recipe.reading import with_value
from trainer.run import Run
from trainer.tasks import task_of
from trainer.tasks.recipe import Recipe, parse_recipe
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from datasets import Dataset

GIVEN = "given"
"""Name of the split that holds them."""
SECTION = "data.columns."


def other_rows(
    data: "str | Path | Dataset | Sequence[Mapping[str, Any]]",
    recipe: Recipe,
    overrides: Mapping[str, Any],
) -> "Dataset":
    """Returns the rows of a file, a folder, a Dataset or a list of dicts, with the run's columns.

    `overrides` maps keys under `data.columns` to the names that these rows have. Raises ConfigError
    for another key or a column that the task does not read, and DataError for rows without a
    column.
    """
    if isinstance(data, str | Path):
        rows = read_files(GIVEN, str(data))[0]
    else:
        rows = as_dataset(GIVEN, data)
    return _renamed(rows, recipe, overrides) if overrides else rows


def described(run: Run, data: Any) -> dict[str, Any]:
    """Returns what identifies the given rows of a run: their `source`, which is a path or a type of
    Python, `rows`, `digest`, and `notes`, a sentence for each thing that is unusual about them."""
    split = run.splits[GIVEN]
    return {
        "source": str(data) if isinstance(data, str | Path) else type(data).__name__,
        "rows": len(split.rows),
        "digest": split.digests["rows"],
        "notes": [note for note in run.notes if f" {GIVEN} " in f" {note} "],
    }


def _renamed(rows: "Dataset", recipe: Recipe, overrides: Mapping[str, Any]) -> "Dataset":
    import datasets

    kind = task_of(recipe)
    own = kind.columns(recipe)
    theirs = kind.columns_in(_with_columns(recipe, own, overrides), rows.column_names)
    check_columns({GIVEN: rows}, theirs, section="")
    rows = resolve_columns(rows, theirs)
    names = {
        column_name(target): column_name(source)
        for key, target in own.items()
        if target is not None and (source := theirs.get(key)) is not None
    }
    others = [name for name in rows.column_names if name not in names]
    parts = [rows.select_columns(others)] if others else []
    for target, source in names.items():
        part = rows.select_columns([source])
        parts.append(part if source == target else part.rename_column(source, target))
    return datasets.concatenate_datasets(parts, axis=1)


def _with_columns(
    recipe: Recipe, own: Mapping[str, Column | None], overrides: Mapping[str, Any]
) -> Recipe:
    """Returns the recipe with other columns; raises ConfigError for a key that is none of its
    columns."""
    values = recipe.model_dump(mode="json", exclude_unset=True)
    read = [key for key, column in own.items() if key.startswith(SECTION) and column is not None]
    for key, value in overrides.items():
        if key not in read:
            names = listed(read, 8) if read else "none: its template names them"
            raise ConfigError(
                f"{excerpt(key)} cannot be set for other data: the columns that the run reads are "
                f"{names}",
                key=key,
                value=value,
                hint="set only these, as KEY=NAME",
            )
        values = with_value(values, key, value)
    return parse_recipe(values, "--set")
