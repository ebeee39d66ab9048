"""GPUs: memory, capability and driver, and the precision and attention that follow from them."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.doctor.finding import Finding
from trainer.doctor.slurm import about_gpus_of_job
from trainer.wording import listed

BUSY = 0.1
"""Share of a GPU's memory in use by other processes from which it is reported."""
GIB = 2**30
FLASH = (8, 0)
"""Compute capability from which GPUs have FlashAttention."""
OLDEST = (5, 0)
"""Compute capability from which torch has memory-efficient attention."""


@dataclass(frozen=True)
class Device:
    """A GPU that torch sees."""

    name: str
    memory: int
    """Bytes, as the driver gives them to processes."""
    capability: tuple[int, int]
    used: int | None = None
    """Bytes in use by all processes; None if unknown."""


@dataclass(frozen=True)
class Cuda:
    """What torch and the system know of CUDA."""

    built_for: str | None
    """CUDA version of this torch; None for a build without CUDA."""
    driver: str | None
    """Version of the driver of NVIDIA; None without one."""
    hidden: bool
    """Whether CUDA_VISIBLE_DEVICES hides every GPU."""
    architectures: Sequence[str]
    """What this torch has kernels for, such as sm_80 and compute_90."""


def about_devices() -> Iterator[Finding]:
    """Yields each GPU, whether this torch runs on it, and what `precision: auto` will be."""
    devices, cuda = _devices(), _cuda()
    yield from of_devices(devices, cuda)
    yield from about_gpus_of_job(len(devices))
    yield from about_precision(devices)
    yield from about_attention(devices)


def of_devices(devices: Sequence[Device], cuda: Cuda) -> Iterator[Finding]:
    """Yields a finding for each GPU, and for what keeps torch from using GPUs."""
    if not devices:
        yield _without_gpu(cuda)
    for index, device in enumerate(devices):
        yield from _one(index, device, cuda)
    different = {(device.name, device.memory) for device in devices}
    if len(different) > 1:
        names = listed(sorted({device.name for device in devices}))
        yield Finding(
            "different-gpus",
            "warning",
            f"the GPUs differ ({names}): the slowest and the smallest one decides for all",
            "choose equal ones by CUDA_VISIBLE_DEVICES",
        )


def about_precision(devices: Sequence[Device]) -> Iterator[Finding]:
    """Yields what `precision: auto` is on these GPUs, and why."""
    from trainer.engines.precision import automatic_precision

    precision = automatic_precision(devices[0].capability if devices else None)
    reasons = {
        "fp32": "CPUs compute in it, and most in nothing smaller at its speed",
        "fp16": "GPUs below capability 8.0 only emulate bf16",
        "bf16": "the GPU has it from capability 8.0 on",
    }
    message = f"precision: auto is {precision}: {reasons[precision]}"
    yield Finding("precision", "fine", message, None, {"precision": precision})


def about_attention(devices: Sequence[Device]) -> Iterator[Finding]:
    """Yields the kernels with which torch computes attention, and why."""
    if not devices:
        message = "attention: sdpa with torch's kernels for CPUs"
        kernels = "cpu"
    elif (capability := min(device.capability for device in devices)) >= FLASH:
        message = (
            "attention: sdpa with FlashAttention kernels in bf16 and fp16, and memory-efficient "
            "ones for padded batches and in fp32"
        )
        kernels = "flash"
    elif capability >= OLDEST:
        message = (
            f"attention: sdpa with memory-efficient kernels: FlashAttention needs capability 8.0, "
            f"and this is {_dotted(capability)}"
        )
        kernels = "efficient"
    else:
        message = f"attention: sdpa without fused kernels: capability {_dotted(capability)}"
        kernels = "math"
    yield Finding(
        "attention", "note" if kernels == "math" else "fine", message, None, {"kernels": kernels}
    )


def runs_on(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Returns whether a torch with kernels for `architectures` runs on a compute capability.

    Kernels (sm_86) run on the same major version from their minor one on, and code that the driver
    compiles (compute_90) on everything newer.
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if match is None:
            continue
        built = int(match[2]), int(match[3])
        if match[4] == "a":
            fits = built == capability
        elif match[1] == "compute" and not match[4]:
            fits = built <= capability
        else:
            fits = built[0] == capability[0] and built <= capability
        if fits:
            return True
    return not architectures


def _one(index: int, device: Device, cuda: Cuda) -> Iterator[Finding]:
    figures = {
        "name": device.name,
        "memory": device.memory,
        "capability": _dotted(device.capability),
        "driver": cuda.driver,
    }
    driver = f", driver {cuda.driver}" if cuda.driver else ""
    what = f"GPU {index}: {device.name}, {device.memory / GIB:.1f} GiB"
    message = f"{what}, capability {_dotted(device.capability)}{driver}, CUDA {cuda.built_for}"
    yield Finding("gpu", "fine", message, None, figures)
    if not runs_on(device.capability, cuda.architectures):
        yield Finding(
            "gpu-without-kernels",
            "failure",
            f"this torch has no kernels for capability {_dotted(device.capability)} of GPU {index} "
            f"({device.name}), only {listed(cuda.architectures)}",
            "install a torch that is built for it",
            {"capability": _dotted(device.capability), "built_for": list(cuda.architectures)},
        )
    if device.used is not None and device.used > BUSY * device.memory:
        yield Finding(
            "gpu-in-use",
            "warning",
            f"other processes use {device.used / GIB:.1f} of {device.memory / GIB:.1f} GiB of GPU "
            f"{index}",
            "end them (nvidia-smi lists them), or choose another GPU by CUDA_VISIBLE_DEVICES",
            {"used": device.used},
        )


def _without_gpu(cuda: Cuda) -> Finding:
    if cuda.driver is not None and cuda.built_for is None:
        return Finding(
            "torch-for-cpu",
            "warning",
            f"the machine has a driver for NVIDIA GPUs ({cuda.driver}), and this torch is built "
            f"for CPUs",
            "install a torch that is built for CUDA",
        )
    if cuda.hidden:
        return Finding(
            "hidden-gpus",
            "note",
            "CUDA_VISIBLE_DEVICES hides every GPU: runs use the CPU",
            "unset it to use GPUs",
        )
    if cuda.driver is not None:
        return Finding(
            "gpus-unusable",
            "warning",
            f"torch for CUDA {cuda.built_for} finds no GPU it can use, although driver "
            f"{cuda.driver} is installed",
            "update the driver, or install a torch for the CUDA version that nvidia-smi shows",
        )
    if cuda.built_for is not None:
        return Finding(
            "no-gpu",
            "note",
            f"torch is built for CUDA {cuda.built_for}, and this machine has no GPU or no driver: "
            f"runs use the CPU",
        )
    return Finding("no-gpu", "note", "there is no GPU: runs use the CPU")


def _dotted(capability: tuple[int, int]) -> str:
    return f"{capability[0]}.{capability[1]}"


def _devices() -> list[Device]:
    import torch

    used, devices = _bytes_in_use(), list[Device]()
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties: Any = torch.cuda.get_device_properties(index)
        devices.append(
            Device(
                properties.name,
                properties.total_memory,
                (properties.major, properties.minor),
                used.get(str(getattr(properties, "uuid", ""))),
            )
        )
    return devices


def _cuda() -> Cuda:
    import torch

    architectures = torch.cuda.get_arch_list() if torch.cuda.is_available() else []
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    version: Any = torch.version
    return Cuda(version.cuda, driver_version(), hidden, architectures)


def driver_version(root: Path = Path("/")) -> str | None:
    """Returns the version of the driver of NVIDIA GPUs; None without one.

    `root` is the folder of /proc.
    """
    try:
        text = (root / "proc/driver/nvidia/version").read_text()
    except OSError:
        return None
    match = re.search(r"Kernel Module.*?\s(\d+\.\d+(?:\.\d+)?)\s", text)
    return match[1] if match else "unknown"


def _bytes_in_use() -> dict[str, int]:
    """Returns the bytes in use of each GPU by its UUID, without the prefix GPU-."""
    if shutil.which("nvidia-smi") is None:
        return {}
    command = ["nvidia-smi", "--query-gpu=uuid,memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = re.findall(r"^GPU-([\w-]+), (\d+)$", done.stdout, re.MULTILINE)
    return {uuid: int(mebibytes) * 2**20 for uuid, mebibytes in pairs}
