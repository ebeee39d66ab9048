"""A lock that a killed process left is removed; one that is held is not."""

import os

import pytest
from torch.utils import cpp_extension

from trainer.engines.extension_locks import remove_stale_locks, use_own_folder


@pytest.fixture
def lock(tmp_path):
    path = tmp_path / "some_op" / "lock"
    path.parent.mkdir(parents=True)
    path.touch()
    return path


@pytest.mark.skipif(
    not hasattr(cpp_extension, "FileBaton"), reason="from torch 2.14 on, locks end with a process"
)
def test_a_lock_without_a_process_is_removed(lock, tmp_path):
    assert remove_stale_locks(tmp_path) == [lock]
    assert not lock.exists()


def test_a_file_that_is_not_the_lock_itself_stays(lock, tmp_path, monkeypatch):
    monkeypatch.delattr(cpp_extension, "FileBaton", raising=False)  # as from torch 2.14 on
    assert remove_stale_locks(tmp_path) == []
    assert lock.exists()


def test_a_lock_that_is_held_stays(lock, tmp_path):
    with lock.open():
        assert remove_stale_locks(tmp_path) == []
    assert lock.exists()


def test_extensions_lie_in_a_folder_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "restored afterwards")
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = use_own_folder()
    assert folder is not None
    assert os.environ["TORCH_EXTENSIONS_DIR"] == str(folder)
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    assert use_own_folder() is None
