"""Loads the splits of a recipe: from the hub, local files or a built-in generator."""

import difflib
import hashlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from trainer.data.builtin import BUILTIN
from trainer.data.columns import ROW, check_columns, column_name, resolve_columns
from trainer.data.documents import group_documents
from trainer.data.exclusion import exclude
from trainer.data.files import read_files
from trainer.data.hub import load_hub
from trainer.errors import ConfigError, DataError
from trainer.recipe.data import Column, Data, Ratio, Source, SplitOrigin
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from datasets import Dataset


def load_splits(data: Data) -> "tuple[dict[str, Dataset], list[str]]":
    """Returns the rows of train and, if the recipe has them, validation and test, plus notes.

    Nested and joined columns of `data.columns` that a split has become plain columns, named by
    `column_name`. Rows are excluded first, then `max_rows` applies, then part of train is split
    off. A note counts the rows left out of each split. Raises DataError if the source cannot be
    read or a split is empty.
    """
    source, notes = _load_source(data.source)
    if "train" not in source:
        raise DataError(
            "the source has no train split", key="data.source", hint=f"it has {listed(source)}"
        )
    origins: dict[str, SplitOrigin] = {"train": "train"}
    for name, origin in (("validation", data.split.validation), ("test", data.split.test)):
        if origin == "auto":
            tenth = Ratio(ratio=0.1, seed=1) if name == "validation" else None
            origin = name if name in source else tenth
        if isinstance(origin, str) and origin not in source:
            raise ConfigError(
                f"data.split.{name}: the source has no split {excerpt(origin)}",
                key=f"data.split.{name}",
                value=origin,
                hint=f"it has {listed(source)}",
            )
        origins[name] = origin
    named = {origin for origin in origins.values() if isinstance(origin, str)}
    used = {name: rows for name, rows in source.items() if name in named}
    only_test = origins["test"] not in (origins["train"], origins["validation"])
    taken, left_out = _take(used, data, spare=origins["test"] if only_test else None)
    splits = {"train": taken["train"]}
    for name, origin in origins.items():
        if isinstance(origin, Ratio):
            parts = _divide(splits["train"], origin, name)
            splits["train"], splits[name] = parts["train"], parts["test"]
        elif name != "train" and origin in taken:
            splits[name] = taken[origin]
    for name, rows in splits.items():
        if len(rows) == 0:
            raise DataError(
                f"the {name} split has no rows",
                key=f"data.split.{name}",
                hint="check data.source and data.split",
            )
    return splits, [*notes, *left_out]


def note_on_unused_test(num_rows: int, reason: str) -> str:
    """Returns the note on a test split that is left out because it cannot be measured."""
    return (
        f"the test split of {num_rows:,} rows is set aside because it cannot be measured: "
        f"{reason}; set data.split.test to another split, or to null for none"
    )


def row_number(rows: "Dataset", index: int) -> int:
    """Returns the number of a row in its source, starting at 1, before any split."""
    return int(rows[index].get(ROW, index + 1))


def rows_digest(rows: "Dataset", columns: list[str]) -> str:
    """Returns a SHA-256 hash of the content of some columns, in the order of the rows."""
    digest = hashlib.sha256()
    arrow = rows.select_columns(columns).with_format("arrow")
    for table in arrow.iter(batch_size=10_000):
        for batch in cast(Any, table).combine_chunks().replace_schema_metadata(None).to_batches():
            digest.update(memoryview(batch.serialize()))
    return digest.hexdigest()


def _take(
    source: "dict[str, Dataset]", data: Data, spare: SplitOrigin = None
) -> "tuple[dict[str, Dataset], list[str]]":
    """Returns at most max_rows rows or documents of each split after exclusion, and notes.

    `spare` is the split that serves only as test: it is left out if no row of it is left.
    """
    columns = {name: getattr(data.columns, name) for name in type(data.columns).model_fields}
    # Resolved while the rows are in their order on disk, which is many times faster than later.
    # Those that a split lacks are left to the task, which knows whether it needs them.
    nested = {
        key: name
        for key, name in columns.items()
        if isinstance(name, tuple) or (name is not None and "." in name)
    }
    measured = {name: rows for name, rows in source.items() if name != spare}
    check_columns(measured, {column: column for column in data.exclude}, "data.exclude")
    if data.documents != "rows":
        check_columns(source, {"text": columns["text"]})
    taken: dict[str, Dataset] = {}
    notes: list[str] = []
    for name, rows in source.items():
        if ROW in rows.column_names:
            raise DataError(
                f"the {name} split has a column {ROW!r}, which is reserved",
                key=ROW,
                hint="rename it",
            )
        rows = rows.add_column(ROW, cast(Any, np.arange(1, len(rows) + 1)))
        if not data.exclude and data.documents == "rows":
            rows = _first(rows, data.max_rows)
        present = {key: column for key, column in nested.items() if _is_in(rows, column)}
        try:
            if name == spare and not all(_is_in(rows, column) for column in data.exclude):
                kept, note = resolve_columns(rows, present), None  # checked when it is encoded
            else:
                kept, note = exclude(resolve_columns(rows, present), data.exclude, name)
        except DataError as error:
            if name != spare:
                raise
            notes.append(note_on_unused_test(len(rows), error.message))
            continue
        if data.documents != "rows":
            kept = group_documents(kept, column_name(data.columns.text), data.documents, ROW)
        taken[name] = _first(kept, data.max_rows)
        notes += [note] if note else []
    return taken, notes


def _is_in(rows: "Dataset", column: Column) -> bool:
    try:
        check_columns({"": rows}, {"": column})
    except DataError:
        return False
    return True


def _first(rows: "Dataset", most: int | None) -> "Dataset":
    return rows if most is None or most >= len(rows) else rows.select(range(most))


def _load_source(source: Source) -> "tuple[dict[str, Dataset], list[str]]":
    import datasets

    datasets.disable_progress_bars()
    if source.builtin is not None:
        if source.builtin not in BUILTIN:
            near = difflib.get_close_matches(source.builtin, BUILTIN, n=1, cutoff=0.0)[0]
            raise ConfigError(
                f"data.source.builtin: there is no {source.builtin}",
                key="data.source.builtin",
                value=source.builtin,
                hint=f"did you mean {near}?",
            )
        generated = BUILTIN[source.builtin](source.num_rows, source.seed)
        return {name: datasets.Dataset.from_list(rows) for name, rows in generated.items()}, []
    if source.files is not None:
        read = {
            split: read_files(split, paths, source.csv) for split, paths in source.files.items()
        }
        notes = [note for _, file_notes in read.values() for note in file_notes]
        return {split: rows for split, (rows, _) in read.items()}, list(dict.fromkeys(notes))
    return load_hub(source)


def _divide(rows: "Dataset", ratio: Ratio, name: str) -> "dict[str, Dataset]":
    try:
        return cast(Any, rows).train_test_split(test_size=ratio.ratio, seed=ratio.seed)
    except ValueError as error:
        raise DataError(
            f"data.split.{name}: {len(rows)} rows cannot give a part of {ratio.ratio}",
            key=f"data.split.{name}",
            value=ratio.ratio,
            hint="use more rows or another ratio",
        ) from error
