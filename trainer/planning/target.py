"""The GPUs that a run is planned for, and the precision of a run there."""

from dataclasses import replace
from typing import Literal

import torch

from trainer.engines.precision import Precision, automatic_precision
from trainer.errors import ConfigError
from trainer.planning.gpus import GPUS, Gpu, gpu_named

LISTED = ("rtx-4090", "t4", "a100-40", "a100-80", "h100", "h200")
"""GPUs of a plan that names none, on a machine without one; the first decides about precision."""


def target_gpus(name: str | None, memory: int | None) -> list[Gpu]:
    """Returns the GPU of a name or of a memory in bytes, this machine's, or else those of a list.

    Raises ConfigError for an unknown name.
    """
    if name is not None:
        gpu = gpu_named(name)
        return [gpu if memory is None else replace(gpu, memory=memory)]
    if memory is not None:
        return [of_memory(memory)]
    local = local_gpu()
    return [GPUS[each] for each in LISTED] if local is None else [local]


def of_memory(memory: int) -> Gpu:
    """Returns a GPU of which only the memory is known; time is not planned for it."""
    size = memory / 2**30
    return replace(GPUS["a100-40"], name=f"GPU of {size:.4g} GiB", memory=memory, peaks={})


def gpu_of(device: torch.device) -> Gpu | None:
    """Returns the GPU of this process, with the memory that other processes leave to it; None if
    the device is a CPU."""
    gpu = local_gpu(device.index or 0) if device.type == "cuda" else None
    if gpu is None:
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return with_memory_left(gpu, free, torch.cuda.memory_reserved(device))


def with_memory_left(gpu: Gpu, free: int, held: int) -> Gpu:
    """Returns a GPU with the memory that is left to a process with a CUDA context there.

    `free` are the bytes that the driver has left, `held` those that the process's allocator holds.
    """
    return replace(gpu, memory=min(gpu.memory, free + held + gpu.context))


def local_gpu(index: int = 0) -> Gpu | None:
    """Returns one of this machine's GPUs, with its own memory; None if it has none."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(index)
    capability = properties.major, properties.minor
    return of_device(properties.name, properties.total_memory, capability)


def of_device(name: str, memory: int, capability: tuple[int, int]) -> Gpu:
    """Returns a GPU as the driver describes it, with the speed of the same model in the table."""
    words = name.lower().replace("-", " ").split()
    same = [gpu for gpu in GPUS.values() if all(part in words for part in _model(gpu))]
    if same:
        nearest = min(same, key=lambda gpu: abs(gpu.memory - memory))
        return replace(nearest, memory=memory)
    return replace(of_memory(memory), name=name, capability=capability)


def _model(gpu: Gpu) -> list[str]:
    """Returns the words of a name in the table without its memory, as a100 of a100-80."""
    first, *rest = gpu.name.split("-")
    return [first, *rest] if first == "rtx" else [first]


def precision_on(gpu: Gpu, wanted: Precision | Literal["auto"]) -> Precision:
    """Returns the precision of a run on a GPU; raises ConfigError for bf16 where it is emulated."""
    if wanted == "auto":
        return automatic_precision(gpu.capability)
    if wanted == "bf16" and gpu.capability < (8, 0):
        raise ConfigError(
            f"precision: bf16 is emulated on {gpu.name}",
            key="precision",
            value=wanted,
            hint="use fp16 or auto",
        )
    return wanted
