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
    stands = rows()
    for chunk in read.iter(batch_size=1000):
        values = cast(dict[str, list[Any]], chunk)
        size = len(next(iter(values.values())))
        expected = list(islice(stands, size))
        if len(expected) != size or any(row.keys() - known for row in expected):
            return False
        for column in columns:
            stand = [row.get(column) for row in expected]
            if stand != values[column] and not _same(stand, values[column]):
                return False
    return next(stands, None) is None


def _same(stands: Any, read: Any) -> bool:
    if isinstance(stands, dict):
        return isinstance(read, dict) and all(
            _same(stands.get(key), read.get(key)) for key in {**stands, **read}
        )
    if isinstance(stands, list):
        return isinstance(read, list) and len(stands) == len(read) and all(map(_same, stands, read))
    if isinstance(stands, float) and isinstance(read, float):
        return math.isclose(stands, read, rel_tol=1e-9) or (math.isnan(stands) and math.isnan(read))
    if type(stands) is int and isinstance(read, float):
        return float(stands) == read and abs(stands) <= EXACT
    return type(stands) is type(read) and stands == read


def own_tables(rows: Rows) -> "tuple[Features, Tables]":
    """Returns the features and tables of the rows.

    A column whose values have one plain type has that type; in others each value is kept as JSON.
    """
    import datasets

    kinds: dict[str, set[type]] = {}
    large = False
    for row in rows():
        for name, value in row.items():
            kinds.setdefault(name, set()).add(type(value))
            large = large or (isinstance(value, int) and abs(value) > EXACT)
    features = datasets.Features(
        {name: _feature(found - {type(None)}, large) for name, found in kinds.items()}
    )
    return features, _tables(rows, features)


def _feature(kinds: set[type], large: bool) -> Any:
    import datasets

    if not kinds:
        return datasets.Value("null")
    plain = {str: "string", bool: "bool", int: "int64", float: "float64"}
    if len(kinds) == 1 and (kind := next(iter(kinds))) in plain:
        return datasets.Value(plain[kind])
    return datasets.Value("float64") if kinds == {int, float} and not large else datasets.Json()


def _tables(rows: Rows, features: "Features") -> Tables:
    import datasets
    import pyarrow as pa

    schema = features.arrow_schema
    stands = rows()
    while chunk := list(islice(stands, 1000)):
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
