"""What engines need: a compiler, no stale locks, and networks between ranks."""

from pathlib import Path

import pytest
from support.findings import by_code, levels
from torch.utils import cpp_extension

from trainer.doctor.communication import (
    about_communication,
    about_networks,
    about_shared_memory,
)
from trainer.doctor.extensions import about_cuda_compiler, about_extensions
from trainer.engines.extension_locks import own_folder


def test_a_missing_compiler_is_a_warning(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    findings = by_code(about_extensions())
    assert findings["no-compiler"].level == "warning"
    assert "no-such-compiler" in findings["no-compiler"].message


def test_a_missing_cuda_compiler_is_a_note_on_a_gpu(tmp_path):
    assert not list(about_cuda_compiler(None, has_gpu=False))
    for home in (None, str(tmp_path)):
        assert levels(about_cuda_compiler(home, has_gpu=True)) == {"no-nvcc": "note"}
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/nvcc").touch()
    assert not list(about_cuda_compiler(str(tmp_path), has_gpu=True))


@pytest.mark.skipif(
    not hasattr(cpp_extension, "FileBaton"), reason="from torch 2.14 on, locks end with a process"
)
def test_stale_locks_are_reported_and_stay(tmp_path, monkeypatch):
    lock = tmp_path / "cpu_adam" / "lock"
    lock.parent.mkdir()
    lock.touch()
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    findings = by_code(about_extensions())
    assert findings["stale-locks"].level == "failure"
    assert findings["stale-locks"].figures == {"locks": [str(lock)]}
    assert lock.exists()
    with lock.open():
        assert "stale-locks" not in by_code(about_extensions())


@pytest.mark.skipif(
    not hasattr(cpp_extension, "FileBaton"), reason="from torch 2.14 on, locks end with a process"
)
def test_where_a_stale_lock_lies_decides_what_it_means(tmp_path, monkeypatch):
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = own_folder()
    assert folder is not None
    assert tmp_path in folder.parents
    assert "stale-locks" not in by_code(about_extensions())
    for place, level in ((folder.parent / "py311_cpu", "warning"), (folder, "note")):
        lock = place / "cpu_adam" / "lock"
        lock.parent.mkdir(parents=True)
        lock.touch()
        finding = by_code(about_extensions())["stale-locks"]
        assert (finding.level, finding.figures) == (level, {"locks": [str(lock)]})
        lock.unlink()


def test_operators_are_known_without_compiling_one(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    first = by_code(about_extensions())["operators"]
    assert "cpu_adam" in first.figures["compatible"]
    assert first.figures["compiled"] == []
    assert not list(tmp_path.iterdir())
    (tmp_path / "cpu_adam").mkdir()
    (tmp_path / "cpu_adam/cpu_adam.so").touch()
    assert by_code(about_extensions())["operators"].figures["compiled"] == ["cpu_adam"]


def test_ranks_can_communicate_here(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    assert levels(about_communication()) == {"communication": "fine"}


def test_a_network_that_does_not_exist_is_a_failure(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth77")
    finding = by_code(about_communication())["no-such-network"]
    assert finding.level == "failure"
    assert finding.message.startswith("GLOO_SOCKET_IFNAME=eth77 names none of the networks")


@pytest.mark.parametrize(
    ("name", "value", "fits"),
    [
        ("NCCL_SOCKET_IFNAME", "eth", True),
        ("NCCL_SOCKET_IFNAME", "=eth", False),
        ("NCCL_SOCKET_IFNAME", "^docker0", True),
        ("NCCL_SOCKET_IFNAME", "ib0,eth1", True),
        ("GLOO_SOCKET_IFNAME", "eth", False),
        ("GLOO_SOCKET_IFNAME", "", True),
    ],
)
def test_networks_are_named_as_each_library_reads_them(name, value, fits):
    assert (list(about_networks({name: value}, ["lo", "eth1"])) == []) is fits


def test_little_shared_memory_is_a_warning():
    assert not list(about_shared_memory(Path("/")))
    assert levels(about_shared_memory(Path("/proc"))) == {"little-shared-memory": "warning"}


def test_a_variable_of_a_launcher_that_is_no_number_is_a_failure(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "four")
    assert levels(about_communication())["invalid-variable"] == "failure"
