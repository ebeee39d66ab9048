"""What the machine is like: each finding is provoked by what would provoke it on a user's."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

from trainer.doctor.communication import (
    about_communication,
    about_networks,
    about_shared_memory,
)
from trainer.doctor.devices import (
    Cuda,
    Device,
    about_attention,
    about_precision,
    driver_version,
    of_devices,
    runs_on,
)
from trainer.doctor.extensions import about_cuda_compiler, about_extensions
from trainer.doctor.hub import about_hub, about_offline, about_tokens
from trainer.doctor.slurm import about_gpus_of_job, about_slurm, seconds_left
from trainer.doctor.storage import Place, about_storage, of_place
from trainer.doctor.threads import about_threads
from trainer.doctor.versions import about_versions, unfulfilled, unimportable
from trainer.engines.extension_locks import own_folder

GIB = 2**30
T4 = Device("Tesla T4", 15 * GIB, (7, 5))
A100 = Device("A100", 80 * GIB, (8, 0))
BUILT = Cuda("12.8", "570.86.10", False, ["sm_75", "sm_80", "sm_90", "compute_90"])


def by_code(findings):
    return {finding.code: finding for finding in findings}


def levels(findings):
    return {finding.code: finding.level for finding in findings}


def distribution(site, name, version, *requirements, code=""):
    """Installs a package into a folder, as its metadata and one file of code."""
    metadata = site / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
    (metadata / "METADATA").write_text("\n".join(lines) + "\n")
    (site / f"{name}.py").write_text(code)


def test_the_versions_of_this_machine_fit_each_other():
    found = list(about_versions())
    assert levels(found)["versions"] == "fine"
    assert found[0].figures["torch"] == torch.__version__
    assert not [one for one in found if one.level == "failure"]


def test_versions_that_do_not_fit_are_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    requirements = ["torch<2", "numpy>=1", "nowhere>=3", "other>=1; extra == 'more'"]
    distribution(tmp_path, "torchvision", "0.14.1", *requirements)
    unfit, missing = unfulfilled("torchvision", "warning")
    assert (unfit.code, unfit.level) == ("unfit-version", "warning")
    assert unfit.message == f"torchvision needs torch<2, and {torch.__version__} is installed"
    assert (missing.code, missing.advice) == ("missing-package", 'pip install "nowhere>=3"')
    assert "other" not in unfit.message + missing.message


def test_a_package_of_another_torch_that_breaks_imports_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "raise RuntimeError('operator torchvision::nms does not exist')"
    distribution(tmp_path, "torchvision", "0.14.1", code=code)
    (found,) = unimportable("torchvision", "warning")
    assert found.code == "unimportable-package"
    assert "torchvision 0.14.1 cannot be imported (RuntimeError: operator" in found.message
    assert found.advice == f"install the torchvision of torch {torch.__version__}, or uninstall it"


@pytest.mark.distributed
def test_bitsandbytes_without_its_library_is_named(tmp_path):
    import bitsandbytes

    package = tmp_path / "bitsandbytes"
    package.mkdir()
    for file in Path(bitsandbytes.__file__).parent.iterdir():
        if not file.name.startswith("libbitsandbytes"):
            (package / file.name).symlink_to(file)
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import bitsandbytes\n"
        "from trainer.doctor.versions import about_native_library\n"
        "print([one.code for one in about_native_library()])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "['no-native-library']", done.stderr


def test_a_gpu_is_described():
    found = by_code(of_devices([A100], BUILT))
    message = "GPU 0: A100, 80.0 GiB, capability 8.0, driver 570.86.10, CUDA 12.8"
    assert found["gpu"].message == message
    assert found.keys() == {"gpu"}


def test_precision_and_attention_follow_from_the_capability():
    for devices, precision, kernels in (
        ([], "fp32", "cpu"),
        ([T4], "fp16", "efficient"),
        ([A100], "bf16", "flash"),
        ([Device("GeForce GTX 780", 3 * GIB, (3, 5))], "fp16", "math"),
    ):
        assert by_code(about_precision(devices))["precision"].figures == {"precision": precision}
        assert by_code(about_attention(devices))["attention"].figures == {"kernels": kernels}
    (attention,) = about_attention([A100, T4])
    assert "FlashAttention needs capability 8.0, and this is 7.5" in attention.message


@pytest.mark.parametrize(
    ("capability", "architectures", "runs"),
    [
        ((7, 5), ["sm_75", "sm_80"], True),
        ((8, 6), ["sm_75", "sm_80"], True),
        ((6, 1), ["sm_75", "sm_80"], False),
        ((12, 0), ["sm_80", "sm_90"], False),
        ((12, 0), ["sm_80", "compute_90"], True),
        ((10, 0), ["sm_90a"], False),
        ((12, 0), ["sm_120"], True),
        ((10, 0), ["sm_120"], False),
        ((8, 0), [], True),
    ],
)
def test_which_gpus_a_torch_has_kernels_for(capability, architectures, runs):
    assert runs_on(capability, architectures) is runs
    device = Device("a GPU", GIB, capability)
    codes = by_code(of_devices([device], Cuda("12.8", None, False, architectures)))
    assert ("gpu-without-kernels" not in codes) is runs


def test_gpus_that_differ_or_are_in_use_are_named():
    busy = Device("Tesla T4", 15 * GIB, (7, 5), used=6 * GIB)
    found = by_code(of_devices([A100, busy], BUILT))
    assert found["different-gpus"].level == "warning"
    assert found["gpu-in-use"].message == "other processes use 6.0 of 15.0 GiB of GPU 1"


@pytest.mark.parametrize(
    ("cuda", "code", "level"),
    [
        (Cuda(None, None, False, []), "no-gpu", "note"),
        (Cuda("12.8", None, False, []), "no-gpu", "note"),
        (Cuda(None, "570.86.10", False, []), "torch-for-cpu", "warning"),
        (Cuda("12.8", "450.80.02", False, []), "gpus-unusable", "warning"),
        (Cuda("12.8", "570.86.10", True, []), "hidden-gpus", "note"),
    ],
)
def test_why_there_is_no_gpu(cuda, code, level):
    assert levels(of_devices([], cuda)) == {code: level}


def test_the_version_of_the_driver_is_read(tmp_path):
    assert driver_version(tmp_path) is None
    file = tmp_path / "proc/driver/nvidia/version"
    file.parent.mkdir(parents=True)
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n"
        "GCC version: gcc 12\n"
    )
    assert driver_version(tmp_path) == "570.86.10"


def test_a_missing_compiler_is_a_warning(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = by_code(about_extensions())
    assert found["no-compiler"].level == "warning"
    assert "no-such-compiler" in found["no-compiler"].message


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
    found = by_code(about_extensions())
    assert found["stale-locks"].level == "failure"
    assert found["stale-locks"].figures == {"locks": [str(lock)]}
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
        found = by_code(about_extensions())["stale-locks"]
        assert (found.level, found.figures) == (level, {"locks": [str(lock)]})
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
    found = by_code(about_communication())["no-such-network"]
    assert found.level == "failure"
    assert found.message.startswith("GLOO_SOCKET_IFNAME=eth77 names none of the networks")


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


def place(folder):
    return Place("prepared data", folder, "set TRAINER_CACHE", "warning")


def test_a_folder_that_does_not_exist_yet_is_fine(tmp_path):
    found = of_place(place(tmp_path / "a" / "b"))
    assert (found.code, found.level) == ("prepared-data", "fine")
    assert found.figures["free"] > 0
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "cache", Path("/proc/cache")):
        found = of_place(place(folder))
        assert (found.code, found.level) == ("unwritable-prepared-data", "warning")
        assert str(folder) in found.message
        assert found.advice == "set TRAINER_CACHE"


def test_each_folder_of_a_run_is_looked_at(monkeypatch, tmp_path, own_caches):
    monkeypatch.chdir(tmp_path)
    found = by_code(about_storage())
    assert found["run-directories"].figures["folder"] == str(tmp_path / "runs")
    assert found["prepared-data"].figures["folder"] == str(own_caches / "trainer")
    assert {"files-of-the-hub", "rows-of-the-hub", "home-folder", "temporary-files"} <= found.keys()
    monkeypatch.setenv("HOME", "/proc/nobody")
    assert levels(about_storage())["unwritable-home-folder"] == "note"


def test_little_space_is_a_warning(monkeypatch):
    from trainer.doctor import storage

    monkeypatch.setattr(storage, "LITTLE", 10**18)
    assert levels(about_storage())["little-space-prepared-data"] == "warning"
    assert "little-space-home-folder" not in levels(about_storage())


def test_the_offline_state_is_that_of_the_libraries():
    assert levels(about_hub())["offline"] == "note"  # as the tests set it
    (half,) = about_offline({"HF_DATASETS_OFFLINE": "1"}, hub=False, rows=True)
    assert (half.code, half.level) == ("half-offline", "warning")
    assert half.message.startswith("HF_DATASETS_OFFLINE=1: data sets are only read")
    assert levels(about_offline({}, hub=False, rows=False)) == {"online": "fine"}
    assert levels(about_offline({"SLURM_JOB_ID": "7"}, hub=False, rows=False)) == {"online": "note"}


def test_the_state_is_true_also_for_each_librarys_own_variable():
    script = "from trainer.doctor.offline import is_offline; print(is_offline())"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_HUB")}
    environment["HF_DATASETS_OFFLINE"] = "1"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "(False, True)\n", done.stderr


def test_tokens_are_found_and_never_shown(tmp_path):
    file, secret = tmp_path / "token", "hf_ThisIsASecret"
    assert levels(about_tokens({}, file)) == {"no-token": "note"}
    file.write_text(secret)
    everything = [
        *about_tokens({}, file),
        *about_tokens({"HF_TOKEN": secret, "WANDB_API_KEY": secret}, file),
        *about_tokens({"HF_TOKEN": f"{secret} {secret}"}, file),
    ]
    assert [one.level for one in everything] == ["fine", "fine", "fine", "failure"]
    assert everything[0].figures == {"from": str(file)}
    assert everything[1].figures == {"from": "HF_TOKEN"}
    assert secret not in str(everything)


def test_threads_are_held_against_the_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    try:
        torch.set_num_threads(1)
        assert levels(about_threads()) == {"threads": "fine"}
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        (chosen,) = about_threads()
        assert (chosen.code, chosen.level) == ("too-many-threads", "warning")
        assert chosen.advice == "set OMP_NUM_THREADS=1"
        monkeypatch.delenv("OMP_NUM_THREADS")
        torch.set_num_threads(8)
        (lowered,) = about_threads()
        assert lowered.message == (
            "8 threads slow each other down on 1 core (SLURM_CPUS_PER_TASK): `trainer train` uses 1"
        )
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


def test_what_a_job_of_slurm_was_given():
    assert not list(about_slurm({}))
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "8",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_MEM_PER_NODE": "64000",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 7300),
    }
    found = by_code(about_slurm(job))
    expected = "job 7 has 2 nodes, 8 tasks, 4 CPUs of a task, 4 GPUs of this node, 64000 MB"
    assert found["slurm"].message.startswith(expected)
    assert found["slurm-time"].level == "fine"
    short = {**job, "SLURM_JOB_END_TIME": str(int(time.time()) + 200)}
    del short["SLURM_CPUS_PER_TASK"]
    assert levels(about_slurm(short)) == {
        "slurm": "fine",
        "slurm-cpus": "warning",
        "slurm-time": "warning",
    }
    assert levels(about_gpus_of_job(0, job)) == {"slurm-gpus": "warning"}
    assert not list(about_gpus_of_job(4, job))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784), ("02:03:04", 7384), ("3:04", 184), ("UNLIMITED", None), ("", None)],
)
def test_a_time_of_squeue_is_read(text, seconds):
    assert seconds_left(text) == seconds


def test_squeue_is_asked_if_no_variable_says_the_end(tmp_path, monkeypatch):
    program = tmp_path / "squeue"
    program.write_text('#!/bin/sh\n[ "$3" = 7 ] && echo 5:00\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found = by_code(about_slurm({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}))
    assert found["slurm-time"].figures == {"seconds": 300}
    unknown = by_code(about_slurm({"SLURM_JOB_ID": "8", "SLURM_CPUS_PER_TASK": "1"}))
    assert unknown["slurm-time"].level == "note"
