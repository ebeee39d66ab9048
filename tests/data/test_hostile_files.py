"""Data files as people and accidents leave them: read as they stand there, or refused."""

import json
from collections import Counter
from pathlib import Path

import pytest
from support.damaged_files import damaged_file
from support.strict_reading import same_values, strictly

from trainer.data.columns import ROW
from trainer.data.sources import load_splits
from trainer.errors import ConfigError, DataError
from trainer.recipe.data import Data


def outcome(folder: Path, seed: int) -> str:
    """Returns what came of a damaged file: "read", "refused", or what is wrong with it."""
    name, content = damaged_file(seed)
    file = folder / name
    file.write_bytes(content)
    source = {"files": {"train": str(file)}}
    recipe = {"source": source, "split": {"validation": None, "test": None}}
    expected = strictly(name, content)
    try:
        splits, _ = load_splits(Data.model_validate_json(json.dumps(recipe)))
    except (ConfigError, DataError) as error:
        message = str(error)
        if len(message) > 500 or "\n" in message:
            return f"a message of {len(message)} characters"
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    read = splits["train"].remove_columns(ROW)
    columns = read[:]
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    if expected is None:
        return "wrong: read, and has no single meaning"
    return "read" if same_values(rows, expected) else "wrong: other rows"


def outcomes(folder: Path, seeds: range) -> Counter[str]:
    found: Counter[str] = Counter()
    for seed in seeds:
        result = outcome(folder, seed)
        assert result in ("read", "refused"), f"seed {seed}, {damaged_file(seed)}: {result}"
        found[result] += 1
    return found


def test_a_damaged_file_is_read_as_it_stands_there_or_refused(tmp_path):
    found = outcomes(tmp_path, range(300))
    assert min(found["read"], found["refused"]) > 60, "else it shows nothing"


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path):
    outcomes(tmp_path, range(1000, 11_000))
