"""Shards: complete on any number of ranks, with few tensors in memory at a time."""

import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from trainer.checkpoints import shards
from trainer.checkpoints.record import fingerprint
from trainer.checkpoints.saved_tensors import SavedTensors
from trainer.checkpoints.shards import ShardWriter
from trainer.engines.portable_state import GatherableTensor

SIZES = [30, 50, 10, 200, 5, 90, 20, 100, 100]


def wholes(sizes: list[int]) -> list[GatherableTensor]:
    """Returns tensors of these sizes in bytes."""
    made = [torch.arange(size, dtype=torch.uint8) + index for index, size in enumerate(sizes)]
    return [GatherableTensor(f"t{i}", t.numel(), lambda t=t: t) for i, t in enumerate(made)]


def write(folder: Path, rank: int, num_ranks: int, sizes: list[int] = SIZES) -> set[str]:
    writer = ShardWriter(folder, rank, num_ranks, snapshot=False)
    writer.write("model", wholes(sizes))
    writer.write("optimizer", wholes(sizes[:3]))
    files, error = writer.result()
    assert error is None
    assert files == {name: fingerprint(folder / name) for name in files}
    return set(files)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(shards, "SHARD_BYTES", 100)


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 20])
@pytest.mark.usefixtures("small")
def test_every_tensor_is_written_once_whatever_the_number_of_ranks(num_ranks, tmp_path):
    files = [write(tmp_path, rank, num_ranks) for rank in range(num_ranks)]
    assert sum(map(len, files)) == len(set().union(*files)) == len(list(tmp_path.iterdir()))
    assert max(map(len, files)) - min(map(len, files)) <= 1
    saved = SavedTensors(tmp_path.glob("model-*"))
    assert sorted(saved) == sorted(tensor.name for tensor in wholes(SIZES))
    for tensor in wholes(SIZES):
        assert torch.equal(saved[tensor.name], tensor.gather())
    assert len(SavedTensors(tmp_path.glob("optimizer-*"))) == 3
    for file in tmp_path.iterdir():
        held = [tensor.numel() for tensor in load_file(file).values()]
        assert sum(held) <= 100 or len(held) == 1


@given(st.lists(st.integers(1, 250), min_size=1, max_size=30), st.integers(1, 3))
def test_a_rank_never_holds_more_than_two_files_or_one_tensor(sizes, num_ranks):
    """Gathering is faster than writing here."""
    held, most, lock = [0], [0], threading.Lock()

    def count(num_bytes: int) -> None:
        with lock:
            held[0] += num_bytes
            most[0] = max(most[0], held[0])

    def gathered(size: int) -> torch.Tensor:
        tensor = torch.zeros(size, dtype=torch.uint8)
        count(size)
        weakref.finalize(tensor, count, -size)
        return tensor

    def slow(_file: Path, shard: dict[str, torch.Tensor]) -> tuple[str, dict[str, int | str]]:
        time.sleep(0.0005)
        shard.clear()
        return "", {}

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(shards, "SHARD_BYTES", 100)
        patched.setattr(shards, "_write", slow)
        writer = ShardWriter(Path(), rank=0, num_ranks=num_ranks, snapshot=False)
        writer.write(
            "model",
            (GatherableTensor(str(i), n, lambda n=n: gathered(n)) for i, n in enumerate(sizes)),
        )
        writer.result()
    assert most[0] <= max(200, *sizes)


def test_a_snapshot_is_what_was_there_when_it_was_taken(tmp_path):
    weight = torch.zeros(10)
    writer = ShardWriter(tmp_path, 0, 1, snapshot=True)
    writer.write("model", [GatherableTensor("weight", 40, lambda: weight)])
    weight += 1
    writer.result()
    assert torch.equal(SavedTensors(tmp_path.iterdir())["weight"], torch.zeros(10))


@pytest.mark.usefixtures("small")
def test_a_failed_write_is_reported_at_the_end(tmp_path):
    """A rank that raised at once would leave the others waiting in the next gather."""
    asked: list[str] = []
    writer = ShardWriter(tmp_path / "gone", 0, 1, snapshot=False)
    tensors = [
        GatherableTensor(t.name, t.num_bytes, lambda t=t: asked.append(t.name) or t.gather())
        for t in wholes(SIZES)
    ]
    writer.write("model", tensors)
    assert len(asked) == len(SIZES)
    files, error = writer.result()
    assert files == {}
    assert "No such file" in str(error)


def test_a_tensor_outlives_the_file_it_was_read_from(tmp_path):
    write(tmp_path, 0, 1)
    read = SavedTensors(tmp_path.glob("model-*"))["t3"]
    for file in tmp_path.iterdir():
        file.unlink()
    assert torch.equal(read, wholes(SIZES)[3].gather())
