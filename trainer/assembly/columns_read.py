"""The columns that a recipe reads: their hash, those that identify a row, and those left over."""

from typing import TYPE_CHECKING

from trainer.data.columns import ROW, column_name
from trainer.data.sources import rows_digest
from trainer.recipe.schema import Recipe
from trainer.tasks import task_of
from trainer.wording import listed

if TYPE_CHECKING:
    from datasets import Dataset

MAY_MATTER = frozenset(
    "tools functions documents system instruction input output response prompt completion messages "
    "conversations chosen rejected text_pair sentence2 question2 hypothesis premise context weight "
    "weights sample_weight target targets history".split()
)
"""Names of columns that usually change what a row means."""


def digest_of_rows(rows: "Dataset", recipe: Recipe) -> str:
    """Returns a hash of the columns that a recipe reads."""
    return rows_digest(rows, _names_read(rows, recipe))


def unread_columns(rows: "Dataset", recipe: Recipe) -> list[str]:
    """Returns a sentence about the columns that the recipe does not read, if any of them may
    matter."""
    read = {name.partition(".")[0] for name in _names_read(rows, recipe)}
    columns = recipe.data.columns
    joined = [name for name in (columns.text, columns.text_pair) if isinstance(name, tuple)]
    read |= {part.partition(".")[0] for names in joined for part in names}
    read |= set(task_of(recipe).optional_columns)
    unread = [name for name in rows.column_names if name not in (*read, ROW)]
    if not any(name.lower() in MAY_MATTER for name in unread):
        return []
    return [f"columns of the train split that are not read: {listed(unread)}"]


def identifying_columns(rows: "dict[str, Dataset]", recipe: Recipe) -> list[str]:
    """Returns the columns by which rows of different splits can be compared.

    These are the columns that the task reads, except the id and the target; empty unless every
    split has all of them.
    """
    kind = task_of(recipe)
    names = rows["train"].column_names
    shared = [name for name in names if all(name in part.column_names for part in rows.values())]
    columns = kind.columns_in(recipe, shared)
    ignored = ("data.columns.id", kind.target)
    identifying = [column_name(c) for key, c in columns.items() if c and key not in ignored]
    return identifying if set(identifying) <= set(shared) else []


def _names_read(rows: "Dataset", recipe: Recipe) -> list[str]:
    columns = task_of(recipe).columns_in(recipe, rows.column_names)
    return list(dict.fromkeys(column_name(c) for c in columns.values() if c is not None))
