"""What every generator promises: the same rows everywhere, in splits that share none."""

import hashlib
import json
import subprocess
from collections.abc import Callable

import datasets
import pytest
from support.paths import program

from trainer.data.builtin import BUILTIN
from trainer.data.builtin.draws import Rows

SPLITS = ("train", "validation", "test")
COLUMNS = {
    "reviews": ["text", "label"],
    "nli": ["premise", "hypothesis", "label"],
    "passages": ["id", "title", "context", "question", "answers"],
    "documents": ["text"],
    "instructions": ["instruction", "input", "output"],
}
# What a model is shown of a row; no two rows have the same.
SHOWN = {
    "reviews": ["text"],
    "nli": ["premise", "hypothesis"],
    "passages": ["context", "question"],
    "documents": ["text"],
    "instructions": ["instruction", "input"],
}
# Results that were published on these rows hold only as long as the rows do.
GOLDEN = {
    "reviews": "cd0715f0662d74980894bc2a065ccf240fb17b80f6d1f20fae9503cd78f1d7f7",
    "nli": "ed4e38a853e7ece79be8ce22e77abc97a296272dff70ead2638cd9fdb881bcd3",
    "passages": "8193e009709a082c8ace1b5208859a5c5277f8d27e16a818aba6e9b23dba7138",
    "documents": "8b389c3d761ea267d138eddd6ac6255c5efdec798413c9b9eda7c17bc33cdcf1",
    "instructions": "a964b66a5400321c5b542efa7a4176e030b6a999c3efa29554f3960f49192f42",
}

Generate = Callable[[int, int], dict[str, Rows]]


@pytest.fixture(params=BUILTIN)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def generate(name: str) -> Generate:
    return BUILTIN[name]


def _fingerprint(splits: dict[str, Rows]) -> str:
    return hashlib.sha256(json.dumps(splits).encode()).hexdigest()


def test_every_generator_is_described_here() -> None:
    assert list(BUILTIN) == list(COLUMNS) == list(SHOWN) == list(GOLDEN)


@pytest.mark.parametrize(("num_rows", "held_out"), [(1, 200), (7, 200), (4000, 500)])
def test_sizes_and_columns(name: str, generate: Generate, num_rows: int, held_out: int) -> None:
    generated = generate(num_rows, 0)
    assert {split: len(rows) for split, rows in generated.items()} == {
        "train": num_rows,
        "validation": held_out,
        "test": held_out,
    }
    assert all(list(row) == COLUMNS[name] for rows in generated.values() for row in rows)


def test_no_rows_is_an_error(generate: Generate) -> None:
    with pytest.raises(ValueError, match="num_rows=0"):
        generate(0, 0)


def test_the_rows_are_those_they_were(name: str, generate: Generate) -> None:
    assert _fingerprint(generate(400, 3)) == GOLDEN[name]


def test_other_rows_for_another_seed(generate: Generate) -> None:
    assert generate(400, 4) != generate(400, 3)


def test_same_rows_in_another_process() -> None:
    there = subprocess.run(program("fingerprints"), capture_output=True, text=True, check=True)
    here = {name: _fingerprint(generate(400, 3)) for name, generate in BUILTIN.items()}
    assert json.loads(there.stdout) == here


def test_nothing_is_shown_twice(name: str, generate: Generate) -> None:
    generated = generate(3000, 0)
    shown = [
        tuple(row[column].lower() for column in SHOWN[name])
        for split in SPLITS
        for row in generated[split]
    ]
    assert len(set(shown)) == len(shown)


def test_a_data_set_keeps_the_rows_as_they_are(generate: Generate) -> None:
    rows = generate(30, 0)["train"]
    assert datasets.Dataset.from_list(rows).to_list() == rows
