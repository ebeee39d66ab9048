"""Prepared splits: written once under a hash of what decides them, whole or not at all."""

import json
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from support.paths import program

from trainer.assembly import inputs
from trainer.data.encoded import Ragged, Summary, encode_once
from trainer.errors import DataError
from trainer.files.cache import cache_folder, content_key
from trainer.files.kept_folder import write_once
from trainer.models.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from trainer.recipe.data import Columns, Data, Source
from trainer.recipe.model import Model, TrainedTokenizer
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.tasks.classification.task import Classification
from trainer.tasks.recipe import Recipe

COLUMNS: dict[str, list[Any]] = {"input_ids": [[5, 6, 7], [8], [9, 10]], "label": [1, 0, 1]}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def encode(summary: Summary) -> Iterator[dict[str, list[Any]]]:
    """Gives the columns in two parts."""
    for part in (slice(0, 2), slice(2, 3)):
        summary.measure(part.stop, max_length=2)
        yield {name: entries[part] for name, entries in COLUMNS.items()}


def never(_: Summary) -> Any:
    raise AssertionError("it is there already")


def test_what_is_prepared_comes_back(cache):
    split = encode_once("key", encode)
    assert [split.ragged("input_ids")[index].tolist() for index in range(3)] == COLUMNS["input_ids"]
    assert split.array("label").tolist() == COLUMNS["label"]
    assert split.lengths.tolist() == [3, 1, 2]
    assert len(split) == 3
    assert (split.summary.num_truncated, split.summary.longest) == (1, 3)
    assert cache_folder() == cache
    assert [path.name for path in (cache / "prepared").glob("[!.]*")] == ["key"]


def test_it_is_made_once_and_then_read():
    encode_once("key", encode)
    again = encode_once("key", never)
    assert again.ragged("input_ids")[2].tolist() == [9, 10]
    with pytest.raises(AssertionError, match="already"):
        encode_once("other", never)


def test_it_is_read_from_the_file_and_cannot_be_changed():
    column = encode_once("key", encode).columns["input_ids"]
    assert isinstance(column, Ragged)
    assert isinstance(column.values, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        column[0][0] = 1


@pytest.mark.parametrize("error", [DataError("row 3"), KeyboardInterrupt(), OSError("full")])
def test_a_crash_while_it_is_written_leaves_nothing(cache, error):
    def broken(_: Summary) -> Any:
        raise error

    def half(folder: Path) -> None:
        (folder / "half.npy").write_bytes(b"half")
        raise error

    with pytest.raises(type(error)):
        encode_once("key", broken)
    with pytest.raises(type(error)):
        write_once(cache / "prepared" / "key", half)
    assert [path for path in (cache / "prepared").iterdir() if path.is_dir()] == []
    assert encode_once("key", encode).lengths.tolist() == [3, 1, 2]


def test_what_a_killed_process_left_is_removed_by_the_next(cache):
    left = cache / "prepared" / ".key-abandoned"
    left.mkdir(parents=True)
    encode_once("another", encode)
    assert left.is_dir()
    encode_once("key", encode)
    assert not left.exists()


def test_of_several_processes_one_writes_and_all_find_it_complete(tmp_path):
    folder, notes = tmp_path / "cache" / "key", tmp_path / "notes"
    notes.mkdir()
    command = program("one_of_four_writers", folder, notes)
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0, 0]
    assert len(list(notes.glob("writer-*"))) == 1
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["key"]


def test_the_key_is_that_of_every_part():
    assert content_key(rows="a", length=8) == content_key(length=8, rows="a")
    keys = {
        content_key(rows="a", length=8),
        content_key(rows="b", length=8),
        content_key(rows="a", length=9),
        content_key(rows="a", longer=8),
    }
    assert len(keys) == 4


# The key of a split, as a run makes it.

TEXTS = ["a good film", "a bad film", "the plot was good", "the plot was bad", "not good at all"]


def tokenizer(folder: Path, vocab_size: int) -> Any:
    if not folder.is_dir():
        train_tokenizer(TrainedTokenizer(train="bpe", vocab_size=vocab_size), TEXTS * 20, folder)
    return load_tokenizer(Model(name_or_path=str(folder)))


def rows(texts: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts, "label": [0, 1] * (len(texts) // 2) + [0]})


RECIPE = Recipe(
    model=Model(name_or_path="bert"),
    task=ClassificationSettings(name="classification"),
    data=Data(source=Source(builtin="reviews")),
)


def task(*, length: int = 8, labels: tuple[str, ...] = ("0", "1")) -> dict[str, Any]:
    return {"labels": labels, "columns": Columns(), "max_seq_length": length}


def num_prepared(cache: Path) -> int:
    return len(list((cache / "prepared").glob("[!.]*")))


def test_a_run_prepares_only_what_changed(cache, tmp_path):
    def prepared(data: datasets.Dataset, settings: dict[str, Any], vocab_size: int = 270) -> int:
        # A fresh tokenizer, as each run has: its first use leaves traces in it.
        fresh = tokenizer(tmp_path / str(vocab_size), vocab_size)
        classification = Classification(tokenizer=fresh, **settings)
        parts = {"train": data, "validation": data}
        inputs.prepare_splits(parts, classification, RECIPE, fresh)
        return num_prepared(cache)

    data = rows(TEXTS)
    assert prepared(data, task()) == 1  # two splits of the same rows are one
    assert prepared(rows(TEXTS), task()) == 1
    assert prepared(data.add_column("id", [1, 2, 3, 4, 5]), task()) == 1
    assert prepared(rows([*TEXTS[:-1], "all good"]), task()) == 2
    assert prepared(data, task(length=7)) == 3
    assert prepared(data, task(labels=("0", "1", "2"))) == 4
    assert prepared(data, task(), vocab_size=280) == 5
    assert prepared(data, task()) == 5


# A kept folder that is not as it was written.


def damage_values(folder: Path) -> None:
    (folder / "input_ids.values").write_bytes(np.array([5, 6, 7, 8, 9, 11], np.int32).tobytes())


def cut_ends(folder: Path) -> None:
    (folder / "input_ids.ends").write_bytes(b"\0" * 16)


def swap_two(folder: Path) -> None:
    ids, labels, aside = (folder / f"{name}.values" for name in ("input_ids", "label", "x"))
    ids.rename(aside)
    labels.rename(ids)
    aside.rename(labels)


def lose_one(folder: Path) -> None:
    (folder / "label.values").unlink()


def add_one(folder: Path) -> None:
    (folder / "another").write_text("")


def pipe(folder: Path) -> None:
    (folder / "label.values").unlink()
    os.mkfifo(folder / "label.values")


def no_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def edit_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text("[]")


DAMAGES = [damage_values, cut_ends, swap_two, lose_one, add_one, pipe, no_folder, edit_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_written_again_with_a_warning(cache, damage, caplog):
    first = encode_once("key", encode)
    damage(cache / "prepared" / "key")
    again = encode_once("key", encode)
    assert [again.ragged("input_ids")[i].tolist() for i in range(3)] == COLUMNS["input_ids"]
    assert again.digests == first.digests
    (message,) = caplog.messages
    assert "is not as it was written" in message
    encode_once("key", never)


def test_a_folder_without_a_manifest_is_written_again_silently(cache, caplog):
    encode_once("key", encode)
    damage_values(cache / "prepared" / "key")
    (cache / "prepared" / "key" / "manifest.json").unlink()
    assert encode_once("key", encode).ragged("input_ids")[2].tolist() == [9, 10]
    assert caplog.messages == []
    kept = cache / "tokenizer"
    kept.mkdir()
    (kept / "tokenizer.json").write_text("{}")
    assert write_once(kept, never, accept_unlisted=True) == kept  # that of an older run


def test_columns_that_do_not_fit_each_other_are_refused(cache):
    """As if a manifest had been changed with them."""

    def write(folder: Path) -> None:
        values, ends = np.arange(3, dtype=np.int32), np.array([1, 5], np.int64)
        (folder / "input_ids.values").write_bytes(values.tobytes())
        (folder / "input_ids.ends").write_bytes(ends.tobytes())
        facts = {"columns": {"input_ids": "ragged int32"}, "summary": {}}
        (folder / "prepared.json").write_text(json.dumps(facts))

    write_once(cache / "prepared" / "key", write)
    with pytest.raises(DataError, match=r"input_ids\.ends does not divide") as caught:
        encode_once("key", never)
    assert caught.value.key == str(cache / "prepared" / "key")


def test_the_cache_of_another_user(monkeypatch):
    """Modes follow the umask; what may only be read is used, and what may not is a sentence."""
    before = os.umask(0o022)
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    monkeypatch.setenv("TRAINER_CACHE", str(place / "cache"))
    try:
        encode_once("key", encode)
        folder = place / "cache" / "prepared" / "key"
        modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "label.values")]
        assert modes == [0o755, 0o644]
        if os.geteuid() != 0:
            pytest.skip("only root can become another user")
        os.seteuid(65534)
        assert len(encode_once("key", never)) == 3
        with pytest.raises(DataError, match="cannot be written") as caught:
            encode_once("other", encode)
        assert caught.value.key == str(place / "cache" / "prepared")
        assert caught.value.hint == "set TRAINER_CACHE to a folder of your own"
        os.seteuid(0)
        folder.chmod(0o700)
        os.seteuid(65534)
        with pytest.raises(DataError, match="cannot be read") as caught:
            encode_once("key", encode)
        assert f"chmod -R a+rX {folder}" in (caught.value.hint or "")
        assert "TRAINER_CACHE" in (caught.value.hint or "")
    finally:
        os.umask(before)
        if os.getuid() == 0:
            os.seteuid(0)
        shutil.rmtree(place)
