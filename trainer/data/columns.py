"""Columns as a recipe names them: plain, a field of a nested column, or several texts joined."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from trainer.errors import DataError
from trainer.recipe.data import Column

if TYPE_CHECKING:
    from datasets import Dataset

ROW = "row of the source"
"""Name of the column that keeps the numbers of rows through exclusion and division."""

FORMAT = 1
"""Incremented when `resolve_columns` gives other values, so that older ones are not reused.

Not `Dataset.flatten()`, which flattens all struct columns but no `datasets.Json` column: the paths
of a recipe may lead into either.
"""

Keys = tuple[str, ...]
"""A column and the fields inside it that lead to a value."""


def column_name(column: Column) -> str:
    """Returns the plain name that a column has after `resolve_columns`."""
    return column if isinstance(column, str) else " + ".join(column)


def check_columns(
    splits: "Mapping[str, Dataset]",
    columns: Mapping[str, Column | None],
    section: str = "data.columns",
) -> None:
    """Raises DataError for a column that a split does not have, naming the nearest it has.

    `columns` has the keys of the recipe's `section`; without one they are written in full. Columns
    that are to be joined hold text.
    """
    for split, rows in splits.items():
        for key, column in columns.items():
            where = f"{section}.{key}" if section else key
            if column is None or column_name(column) in rows.column_names:
                continue
            for name in _names(column):
                found = _find(rows.features, name)
                if found is None or not _occurs(rows, *found):
                    raise DataError(
                        f"{where}: the {split} split has no column {name}; "
                        f"{_what_there_is(rows, name)}"
                    )
                if len(_names(column)) > 1 and not _may_be_text(found[1]):
                    raise DataError(
                        f"{where}: {name} of the {split} split holds no text, and only "
                        f"texts can be joined; leave it out"
                    )


def resolve_columns(rows: "Dataset", columns: Mapping[str, Column | None]) -> "Dataset":
    """Adds one flat column, named `column_name(c)`, for each nested or joined column `c`.

    The columns must have passed `check_columns`. Rows stay on disk, and added columns go there.
    A joined text is null if one of its parts is not a text.
    """
    import datasets

    paths: dict[str, list[Keys]] = {}
    features: dict[str, Any] = {}
    for column in columns.values():
        name = column_name(column or "")
        if column is None or name in rows.column_names:
            continue
        found = [_find(rows.features, part) for part in _names(column)]
        paths[name] = [keys for keys, _ in filter(None, found)]
        assert len(paths[name]) == len(found), f"check_columns would have refused {name}"
        text = datasets.Value("string")
        features[name] = text if len(found) > 1 else _kind(rows, *cast(Any, found[0]))
    if not paths:
        return rows
    read = sorted({keys[0] for several in paths.values() for keys in several})
    added = rows.select_columns(read).map(
        _plain_columns,
        batched=True,
        fn_kwargs={
            "paths": paths,
            "mixed": [name for name in features if isinstance(features[name], datasets.Json)],
            "format": FORMAT,
        },
        features=datasets.Features(features),
        remove_columns=read,
    )
    return datasets.concatenate_datasets([rows, added], axis=1)


def holds_objects_as_text(feature: Any) -> bool:
    """Returns whether a column keeps objects as they stood in the source, each with its own keys.

    Other columns of objects give each of them a null for a key that only others have.
    """
    import datasets

    if isinstance(feature, datasets.Json):
        return True
    if isinstance(feature, dict):
        return any(map(holds_objects_as_text, cast(dict[str, Any], feature).values()))
    inner = getattr(feature, "feature", None)
    return inner is not None and holds_objects_as_text(inner)


def _plain_columns(
    batch: Mapping[str, list[Any]],
    paths: Mapping[str, list[Keys]],
    mixed: Sequence[str],
    format: int,  # noqa: ARG001  (part of the name under which the library keeps the result)
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name, several in paths.items():
        values = [_follow(batch[keys[0]], keys[1:]) for keys in several]
        columns[name] = values[0] if len(values) == 1 else list(map(_joined, *values))
        if name in mixed:  # as the library keeps them; it would take the text "1" for a number
            columns[name] = [value if value is None else json.dumps(value) for value in values[0]]
    return columns


def _joined(*texts: Any) -> str | None:
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    return "\n".join(text for text in texts if text and text.strip())


def _names(column: Column) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _find(fields: Mapping[str, Any], name: str) -> tuple[Keys, Any] | None:
    """Returns the keys that lead to a name, and the kind of its values.

    A field that has the name with its dots goes before a path through several. What is below a
    column of mixed objects is not known before the values are read.
    """
    import datasets

    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        key, rest = ".".join(parts[:cut]), ".".join(parts[cut:])
        if key not in fields:
            continue
        inner = fields[key]
        if not rest:
            return (key,), inner
        if isinstance(inner, datasets.Json):
            return (key, *parts[cut:]), inner
        if isinstance(inner, dict):
            below = _find(cast(dict[str, Any], inner), rest)
            if below is not None:
                return (key, *below[0]), below[1]
    return None


def _follow(values: Sequence[Any], keys: Keys) -> list[Any]:
    """Returns what the keys lead to in each value, None where a value lacks one."""
    found = list(values)
    for key in keys:
        found = [value.get(key) if isinstance(value, dict) else None for value in found]
    return found


def _occurs(rows: "Dataset", keys: Keys, feature: Any) -> bool:
    """Returns whether a path exists: in columns of mixed objects, in some row at least."""
    import datasets

    if len(keys) == 1 or not isinstance(feature, datasets.Json):
        return True
    parents = (_follow(values, keys[1:-1]) for values in _chunks(rows, keys[0]))
    return any(isinstance(value, dict) and keys[-1] in value for part in parents for value in part)


def _kind(rows: "Dataset", keys: Keys, feature: Any) -> Any:
    """Returns the kind of the values at the end of a path; of mixed objects they have to be read.

    One kind of plain values makes a plain column.
    """
    import datasets

    if not isinstance(feature, datasets.Json):
        return feature
    values = (value for chunk in _chunks(rows, keys[0]) for value in _follow(chunk, keys[1:]))
    found = {type(value) for value in values if value is not None}
    for kinds, dtype in (({str}, "string"), ({int}, "int64"), ({int, float}, "float64")):
        if found <= kinds:
            return datasets.Value(dtype)
    return feature


def _chunks(rows: "Dataset", column: str) -> Iterator[list[Any]]:
    for chunk in rows.select_columns([column]).iter(batch_size=1000):
        yield cast(dict[str, list[Any]], chunk)[column]


def _may_be_text(feature: Any) -> bool:
    import datasets

    dtype = getattr(feature, "dtype", None)
    return isinstance(feature, datasets.Json) or dtype in ("string", "large_string", "null")


def _what_there_is(rows: "Dataset", name: str) -> str:
    """Returns the names at the first level at which a path leaves what there is."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        before = ".".join(parts[:cut])
        found = _find(rows.features, before)
        if found is not None and _occurs(rows, *found):
            known = _fields(rows, *found)
            if not known:
                return f"{before} has no fields"
            near = difflib.get_close_matches(parts[cut], known, n=1, cutoff=0.4)
            hint = f"; did you mean {before}.{near[0]}?" if near else ""
            return f"{before} has {', '.join(known)}{hint}"
    known = [column for column in rows.column_names if column != ROW]
    near = [
        *difflib.get_close_matches(name, known, n=1, cutoff=0.4),
        *difflib.get_close_matches(parts[0], known, n=1, cutoff=0.4),
    ]
    return f"it has {', '.join(known)}" + (f"; did you mean {near[0]}?" if near else "")


def _fields(rows: "Dataset", keys: Keys, feature: Any) -> list[str]:
    import datasets

    if isinstance(feature, datasets.Json):
        values = _follow(next(_chunks(rows, keys[0]), []), keys[1:])
        return list(
            dict.fromkeys(key for value in values if isinstance(value, dict) for key in value)
        )
    return list(cast(dict[str, Any], feature)) if isinstance(feature, dict) else []
