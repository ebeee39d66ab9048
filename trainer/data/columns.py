"""Columns as a recipe names them: plain ones, fields of nested ones, or several texts joined."""

import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from trainer.errors import DataError
from trainer.recipe.data import Column

if TYPE_CHECKING:
    from datasets import Dataset

ROW = "row of the source"
"""Name of the column that holds the number of each row in its source."""

FORMAT = 1
"""Incremented when `resolve_columns` gives other values, so that older ones are not reused."""

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

    The keys of `columns` are those in the recipe's `section`, or dotted keys if that is empty.
    Columns that are joined must hold text.
    """
    for split, rows in splits.items():
        for key, column in columns.items():
            where = f"{section}.{key}" if section else key
            if column is None or column_name(column) in rows.column_names:
                continue
            for name in _names(column):
                path = _find(rows.features, name)
                if path is None or not _occurs(rows, *path):
                    available, nearest = _alternatives(rows, name)
                    raise DataError(
                        f"{where}: the {split} split has no column {name}; {available}",
                        key=where,
                        value=name,
                        hint=nearest and f"did you mean {nearest}?",
                    )
                if len(_names(column)) > 1 and not _may_be_text(path[1]):
                    raise DataError(
                        f"{where}: {name} of the {split} split is not text, and only text can be "
                        f"joined",
                        key=where,
                        value=name,
                        hint="leave it out",
                    )


def resolve_columns(rows: "Dataset", columns: Mapping[str, Column | None]) -> "Dataset":
    """Adds one flat column, named `column_name(c)`, for each nested or joined column `c`.

    The columns must have passed `check_columns`. Rows stay on disk, and added columns are written
    there. A joined text is null if one of its parts is not text. `Dataset.flatten()` would not do:
    it does not flatten `datasets.Json` columns, into which the path of a column may lead.
    """
    import datasets

    paths: dict[str, list[Keys]] = {}
    features: dict[str, Any] = {}
    for column in columns.values():
        name = column_name(column or "")
        if column is None or name in rows.column_names:
            continue
        parts = [_find(rows.features, part) for part in _names(column)]
        paths[name] = [keys for keys, _ in filter(None, parts)]
        assert len(paths[name]) == len(parts), f"check_columns would have refused {name}"
        text = datasets.Value("string")
        features[name] = text if len(parts) > 1 else _kind(rows, *cast(Any, parts[0]))
    if not paths:
        return rows
    read = sorted({keys[0] for joined in paths.values() for keys in joined})
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


def has_column(row: Mapping[str, Any], column: Column) -> bool:
    """Returns whether a row, as it is in a file, has a column: for a joined one, each part."""
    return all(_path_in(row, name) is not None for name in _names(column))


def value_in(row: Mapping[str, Any], column: Column) -> Any:
    """Returns the value that `resolve_columns` gives a row; None if the row lacks the column.

    The row alone decides whether a name with dots is a field or a path.
    """
    values: list[Any] = []
    for name in _names(column):
        value: Any = row
        for key in _path_in(row, name) or (name,):
            value = value.get(key) if isinstance(value, Mapping) else None
        values.append(value)
    return values[0] if len(values) == 1 else _joined(*values)


def _path_in(row: Mapping[str, Any], name: str) -> Keys | None:
    """Returns the keys that lead to a name in a row, or None if nothing does."""
    parts = name.split(".")
    for cut in range(len(parts), 0, -1):
        key, rest = ".".join(parts[:cut]), ".".join(parts[cut:])
        if key not in row:
            continue
        if not rest:
            return (key,)
        inner = row[key]
        below = _path_in(cast(Any, inner), rest) if isinstance(inner, Mapping) else None
        if below is not None:
            return (key, *below)
    return None


def holds_objects_as_text(feature: Any) -> bool:
    """Returns whether a column keeps the objects of the source unchanged, each with its own keys.

    In other columns of objects, each has a null for every key that only others have.
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
    format: int,  # noqa: ARG001  (part of the key under which the library caches the result)
) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name, joined in paths.items():
        values = [_follow(batch[keys[0]], keys[1:]) for keys in joined]
        columns[name] = values[0] if len(values) == 1 else list(map(_joined, *values))
        if name in mixed:  # encoded as the library does, which would read the text "1" as a number
            columns[name] = [value if value is None else json.dumps(value) for value in values[0]]
    return columns


def _joined(*texts: Any) -> str | None:
    if not all(text is None or isinstance(text, str) for text in texts):
        return None
    return "\n".join(text for text in texts if text and text.strip())


def _names(column: Column) -> tuple[str, ...]:
    return (column,) if isinstance(column, str) else column


def _find(fields: Mapping[str, Any], name: str) -> tuple[Keys, Any] | None:
    """Returns the keys that lead to a name and the feature there, or None if nothing does.

    A field whose own name has dots takes precedence over a path through several fields. Any path
    into a column of mixed objects is accepted, because only its values tell what is there.
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
    """Returns what the keys lead to in each value; None for a value that lacks one of them."""
    inner = list(values)
    for key in keys:
        inner = [value.get(key) if isinstance(value, dict) else None for value in inner]
    return inner


def _occurs(rows: "Dataset", keys: Keys, feature: Any) -> bool:
    """Returns whether a path exists: in a column of mixed objects, in at least one row."""
    import datasets

    if len(keys) == 1 or not isinstance(feature, datasets.Json):
        return True
    parents = (_follow(values, keys[1:-1]) for values in _chunks(rows, keys[0]))
    return any(isinstance(value, dict) and keys[-1] in value for part in parents for value in part)


def _kind(rows: "Dataset", keys: Keys, feature: Any) -> Any:
    """Returns the feature of the column that a path leads to.

    For mixed objects the values are read: if they have one plain type, so has the column.
    """
    import datasets

    if not isinstance(feature, datasets.Json):
        return feature
    present, largest = set[type](), 0
    for chunk in _chunks(rows, keys[0]):
        for value in _follow(chunk, keys[1:]):
            if value is not None:
                present.add(type(value))
                largest = max(largest, value) if type(value) is int else largest
    if largest >= 2**63:  # beyond int64, and too precise for float64
        return feature
    for types, dtype in (({str}, "string"), ({int}, "int64"), ({int, float}, "float64")):
        if present <= types:
            return datasets.Value(dtype)
    return feature


def _chunks(rows: "Dataset", column: str) -> Iterator[list[Any]]:
    for chunk in rows.select_columns([column]).iter(batch_size=1000):
        yield cast(dict[str, list[Any]], chunk)[column]


def _may_be_text(feature: Any) -> bool:
    import datasets

    dtype = getattr(feature, "dtype", None)
    return isinstance(feature, datasets.Json) or dtype in ("string", "large_string", "null")


def _alternatives(rows: "Dataset", name: str) -> tuple[str, str | None]:
    """Returns, as a clause, what exists at the first level where a path leads nowhere, and the
    nearest name there."""
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        parent = ".".join(parts[:cut])
        path = _find(rows.features, parent)
        if path is not None and _occurs(rows, *path):
            known = _fields(rows, *path)
            near = difflib.get_close_matches(parts[cut], known, n=1, cutoff=0.4)
            available = f"has {', '.join(known)}" if known else "has no fields"
            return f"{parent} {available}", f"{parent}.{near[0]}" if near else None
    known = [column for column in rows.column_names if column != ROW]
    near = [
        *difflib.get_close_matches(name, known, n=1, cutoff=0.4),
        *difflib.get_close_matches(parts[0], known, n=1, cutoff=0.4),
    ]
    return f"it has {', '.join(known)}", next(iter(near), None)


def _fields(rows: "Dataset", keys: Keys, feature: Any) -> list[str]:
    import datasets

    if isinstance(feature, datasets.Json):
        values = _follow(next(_chunks(rows, keys[0]), []), keys[1:])
        return list(
            dict.fromkeys(key for value in values if isinstance(value, dict) for key in value)
        )
    return list(cast(dict[str, Any], feature)) if isinstance(feature, dict) else []
