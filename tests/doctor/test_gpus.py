"""What GPUs mean for a run, on records of GPUs that this machine need not have."""

import pytest
from support.findings import by_code, levels

from trainer.doctor.devices import Cuda, Device, driver_version, runs_on
from trainer.doctor.gpus import about_attention, about_precision, of_gpus

GIB = 2**30
T4 = Device("Tesla T4", 15 * GIB, (7, 5))
A100 = Device("A100", 80 * GIB, (8, 0))
BUILT = Cuda("12.8", "570.86.10", False, ["sm_75", "sm_80", "sm_90", "compute_90"])


def test_a_gpu_is_described():
    findings = by_code(of_gpus([A100], BUILT))
    message = "GPU 0: A100, 80.0 GiB, capability 8.0, driver 570.86.10, CUDA 12.8"
    assert findings["gpu"].message == message
    assert findings.keys() == {"gpu"}


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
    codes = by_code(of_gpus([device], Cuda("12.8", None, False, architectures)))
    assert ("gpu-without-kernels" not in codes) is runs


def test_gpus_that_differ_or_are_in_use_are_named():
    busy = Device("Tesla T4", 15 * GIB, (7, 5), used=6 * GIB)
    findings = by_code(of_gpus([A100, busy], BUILT))
    assert findings["different-gpus"].level == "warning"
    assert findings["gpu-in-use"].message == "other processes use 6.0 of 15.0 GiB of GPU 1"


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
    assert levels(of_gpus([], cuda)) == {code: level}


def test_the_version_of_the_driver_is_read(tmp_path):
    assert driver_version(tmp_path) is None
    file = tmp_path / "proc/driver/nvidia/version"
    file.parent.mkdir(parents=True)
    file.write_text(
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build\n"
        "GCC version: gcc 12\n"
    )
    assert driver_version(tmp_path) == "570.86.10"
