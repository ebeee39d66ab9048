"""Data files damaged by people and accidents: read exactly as they are, or refused."""

import gzip
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

ZIPPED = gzip.compress(b'{"text": "a"}\n' * 50)
TABLE = b'text,label\n"so, so",01\nna\xc3\xafve,\n'
LINES = b'{"text": "a", "label": 1}\n{"text": "b", "label": 0}\n'
FIXED = {
    "a.csv": (TABLE, "read"),
    "cell too many.csv": (TABLE + b"a,b,c\n", "refused"),
    "open quote.csv": (TABLE + b'"a,b\n', "refused"),
    "latin-1.csv": (TABLE.replace(b"\xc3\xaf", b"\xef"), "refused"),
    "nul.csv": (TABLE + b"a\0,b\n", "refused"),
    "literal quotes.tsv": (b'text\tlabel\n"a\t"1"\n', "read"),
    "utf-16.tsv": ("text\tlabel\na\t1\n".encode("utf-16"), "refused"),
    "a.jsonl": (LINES, "read"),
    "other types.jsonl": (LINES + b'{"text": 5, "label": "1"}\n', "read"),
    "unsigned.jsonl": (LINES + b'{"text": "c", "label": 18446744073709551615}\n', "read"),
    "too large.jsonl": (LINES + b'{"text": "c", "label": 18446744073709551616}\n', "refused"),
    "cut.jsonl": (LINES[:-5], "refused"),
    "repeated key.jsonl": (LINES + b'{"text": "c", "text": "d"}\n', "refused"),
    "half a character.json": (b'[{"text": "\\ud800"}]', "refused"),
    "deep.json": (b"[" * 100_000, "refused"),
    "line separator.txt": ("a\u2028b\r\n\x0bc\n".encode(), "read"),
    "zipped.jsonl.gz": (ZIPPED, "read"),
    "cut.jsonl.gz": (ZIPPED[:-20], "refused"),
}


def outcome(folder: Path, name: str, content: bytes) -> str:
    """Returns what became of a damaged file: "read", "refused", or what is wrong with it."""
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
    counts: Counter[str] = Counter()
    for seed in seeds:
        result = outcome(folder, *damaged_file(seed))
        assert result in ("read", "refused"), f"seed {seed}, {damaged_file(seed)}: {result}"
        counts[result] += 1
    return counts


@pytest.mark.parametrize("name", FIXED)
def test_a_damaged_file_is_read_exactly_or_refused(tmp_path, name):
    content, expected = FIXED[name]
    assert outcome(tmp_path, name, content) == expected


@pytest.mark.distributed
def test_three_hundred_damaged_files(tmp_path):
    counts = outcomes(tmp_path, range(300))
    assert min(counts["read"], counts["refused"]) > 60, "too few of either to show anything"


@pytest.mark.slow
def test_ten_thousand_damaged_files(tmp_path):
    outcomes(tmp_path, range(1000, 11_000))
