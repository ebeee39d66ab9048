"""What GPUs mean for a run: whether torch runs on them, and precision and attention on them."""

from collections.abc import Iterator, Sequence

from trainer.doctor.devices import Cuda, Device, cuda_of_machine, devices_of_machine, runs_on
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


def about_gpus() -> Iterator[Finding]:
    """Yields each GPU, whether this torch runs on it, and what `precision: auto` will be."""
    devices, cuda = devices_of_machine(), cuda_of_machine()
    yield from of_gpus(devices, cuda)
    yield from about_gpus_of_job(len(devices))
    yield from about_precision(devices)
    yield from about_attention(devices)


def of_gpus(devices: Sequence[Device], cuda: Cuda) -> Iterator[Finding]:
    """Yields a finding for each GPU, and for what keeps torch from using GPUs."""
    if not devices:
        yield _without_gpu(cuda)
    for index, device in enumerate(devices):
        yield from _of_gpu(index, device, cuda)
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


def _of_gpu(index: int, device: Device, cuda: Cuda) -> Iterator[Finding]:
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
