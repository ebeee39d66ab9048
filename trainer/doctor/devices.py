"""The GPUs that torch sees, and what torch and the system know of CUDA."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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


def devices_of_machine() -> list[Device]:
    """Returns the GPUs that torch sees."""
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


def cuda_of_machine() -> Cuda:
    """Returns what torch and the system know of CUDA."""
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
