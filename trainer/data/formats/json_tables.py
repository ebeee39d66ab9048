"""JSON rows as tables: as the `datasets` library reads them, unless it changes a value."""

import json
import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from trainer.data.formats.reading import Tables

if TYPE_CHECKING:
    from datasets import Dataset, Features

Rows = Callable[[], Iterator[dict[str, Any]]]
"""Returns a new iterator over the rows at each call: they need not fit into memory."""

EXACT = 2**53
"""Integers up to this are exact in float64."""


def reads_the_same(read: "Dataset", rows: Rows) -> bool:
    """Returns whether the library read the values that are in the file.

    A missing key equals null. Floating-point numbers may differ in their last digits.
    """
    columns = read.column_names
    known = set(columns)
    in_file = rows()
    for chunk in read.iter(batch_size=1000):
        values = cast(dict[str, list[Any]], chunk)
        size = len(next(iter(values.values())))
        expected = list(islice(in_file, size))
        if len(expected) != size or any(row.keys() - known for row in expected):
            return False
        for column in columns:
            cells = [row.get(column) for row in expected]
            if cells != values[column] and not _same(cells, values[column]):
                return False
    return next(in_file, None) is None


def _same(expected: Any, read: Any) -> bool:
    if isinstance(expected, dict):
        return isinstance(read, dict) and all(
            _same(expected.get(key), read.get(key)) for key in {**expected, **read}
        )
    if isinstance(expected, list):
        same_size = isinstance(read, list) and len(expected) == len(read)
        return same_size and all(map(_same, expected, read))
    if isinstance(expected, float) and isinstance(read, float):
        both_nan = math.isnan(expected) and math.isnan(read)
        return math.isclose(expected, read, rel_tol=1e-9) or both_nan
    if type(expected) is int and isinstance(read, float):
        return float(expected) == read and abs(expected) <= EXACT
    return type(expected) is type(read) and expected == read


def own_tables(rows: Rows) -> "tuple[Features, Tables]":
    """Returns the features and tables of the rows.

    A column whose values have one plain type gets that type; in others each value is kept as JSON,
    and so are integers that exceed int64.
    """
    import datasets

    types: dict[str, set[type]] = {}
    beyond_int64: set[str] = set()
    large = False
    for row in rows():
        for name, value in row.items():
            types.setdefault(name, set()).add(type(value))
            if isinstance(value, int):
                large = large or abs(value) > EXACT
                if value >= 2**63:
                    beyond_int64.add(name)
    features = datasets.Features(
        {
            name: datasets.Json()
            if name in beyond_int64
            else _feature(present - {type(None)}, large)
            for name, present in types.items()
        }
    )
    return features, _tables(rows, features)


def _feature(types: set[type], large: bool) -> Any:
    import datasets

    if not types:
        return datasets.Value("null")
    plain = {str: "string", bool: "bool", int: "int64", float: "float64"}
    if len(types) == 1 and (kind := next(iter(types))) in plain:
        return datasets.Value(plain[kind])
    return datasets.Value("float64") if types == {int, float} and not large else datasets.Json()


def _tables(rows: Rows, features: "Features") -> Tables:
    import datasets
    import pyarrow as pa

    schema = features.arrow_schema
    remaining = rows()
    while chunk := list(islice(remaining, 1000)):
        columns: list[Any] = []
        for field in schema:
            values: list[Any] = [row.get(field.name) for row in chunk]
            if isinstance(features[field.name], datasets.Json):
                texts = [None if value is None else json.dumps(value) for value in values]
                columns.append(
                    pa.ExtensionArray.from_storage(field.type, pa.array(texts, pa.string()))
                )
            else:
                columns.append(pa.array(values, field.type))
        yield pa.Table.from_arrays(columns, schema=schema)
