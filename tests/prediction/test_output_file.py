"""Output files: what becomes of values for which a format has no type."""

import json
import os
from pathlib import Path

import pytest
from pyarrow import parquet

from trainer.errors import ConfigError
from trainer.prediction.output_file import check_output, join


def parts_of(folder: Path, *values) -> list[Path]:
    """Returns parts of one row each, with each value in the column `a`."""
    parts = [folder / f"part-{number}" for number in range(len(values))]
    for part, value in zip(parts, values, strict=True):
        part.write_text(json.dumps({"a": value}) + "\n")
    return parts


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([1, None, 2.5], [1.0, None, 2.5]),
        ([{"x": 1}, {"y": 0.5}], [{"x": 1, "y": None}, {"x": None, "y": 0.5}]),
        ([1, "x", 2], ["1", '"x"', "2"]),
        ([["x", 1], ["x"]], ['["x", 1]', '["x"]']),
        ([2**62 + 1, 2.5], [str(2**62 + 1), "2.5"]),
        ([{}, {}], ["{}", "{}"]),
        ([2**70, 1], [str(2**70), "1"]),
    ],
)
def test_parquet_keeps_a_type_that_holds_all_parts_or_text(values, kept, tmp_path):
    join(parts_of(tmp_path, *values), tmp_path / "answers.parquet")
    assert parquet.read_table(tmp_path / "answers.parquet")["a"].to_pylist() == kept


def test_the_suffix_counts_in_capitals_too(tmp_path):
    join(parts_of(tmp_path, "x"), tmp_path / "answers.CSV")
    assert (tmp_path / "answers.CSV").read_text() == "a\nx\n"


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="is a pipe or a device"):
        check_output(tmp_path / "pipe", tmp_path / "rows.jsonl", overwrite=True)
