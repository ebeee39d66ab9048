"""GPUs by name: memory, speed and links, from data sheets and measurements.

- `memory` is what the driver leaves to processes, as CUDA states it: 14,912 MiB of a T4 were
  measured. The others are close to what is reported in public, and were not measured here. A data
  sheet names 2 to 12 % more, which error correction and the driver take.
- Peaks are those of the vendor's data sheets: dense, of tensor cores that add up in fp32, for fp32
  of CUDA cores, because the trainer does not use TF32. bf16 is absent if the GPU emulates it.
- `context` was measured on a T4 (the least of 67 runs); for the others it is an estimate by
  generation. A context of CUDA 11 is larger.
- Bandwidths are those of data sheets in one direction; latencies are NCCL's own (hwLat and baseLat
  in its src/graph/tuning.cc). Those between nodes assume the network that is usual for the GPU.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from trainer.engines.precision import Precision
from trainer.errors import ConfigError
from trainer.wording import excerpt

MIB, GIB = 2**20, 2**30


@dataclass(frozen=True, kw_only=True)
class Links:
    """Links between GPUs; bandwidths in bytes a second of one GPU in one direction.

    Latencies, in seconds, are those of one hop of a ring, of a tree between nodes and of a call.
    """

    node_size: int
    inside_bandwidth: float
    between_bandwidth: float
    inside_latency: float
    between_latency: float
    tree_latency: float
    call_latency: float


@dataclass(frozen=True, kw_only=True)
class Gpu:
    name: str
    memory: int
    """Bytes that the driver gives to processes."""
    context: int
    """Bytes that a process takes besides its tensors: CUDA's context, kernels and workspaces."""
    capability: tuple[int, int]
    peaks: Mapping[Precision, float]
    """Floating-point operations a second, without sparsity."""
    memory_bandwidth: float
    """Bytes a second."""
    links: Links


def _nvlink(inside: float, between: float) -> Links:
    """Returns the links of nodes of 8 GPUs with NVLink and InfiniBand (NCCL's protocol LL128)."""
    return Links(
        node_size=8,
        inside_bandwidth=inside,
        between_bandwidth=between,
        inside_latency=1.9e-6,
        between_latency=4.0e-6,
        tree_latency=8.5e-6,
        call_latency=14.0e-6,
    )


def _pcie(inside: float, node_size: int = 4) -> Links:
    """Returns the links of nodes with PCIe and 25 Gb/s of Ethernet (NCCL's protocol Simple)."""
    return Links(
        node_size=node_size,
        inside_bandwidth=inside,
        between_bandwidth=25e9 / 8 / node_size,
        inside_latency=5.7e-6,
        between_latency=14.0e-6,
        tree_latency=14.0e-6,
        call_latency=8.4e-6,
    )


def _peaks(tensor: float, fp32: float, *, bf16: bool = True) -> dict[Precision, float]:
    """Returns peaks of tensor cores in 16 bits and of CUDA cores in fp32, both given in TFLOPS."""
    peaks: dict[Precision, float] = {"fp16": tensor * 1e12, "fp32": fp32 * 1e12}
    return {**peaks, "bf16": tensor * 1e12} if bf16 else peaks


def _gpu(
    name: str,
    gibibytes: float,
    context: float,
    capability: tuple[int, int],
    peaks: dict[Precision, float],
    bandwidth: float,
    links: Links,
) -> Gpu:
    return Gpu(
        name=name,
        memory=round(gibibytes * GIB),
        context=round(context * MIB),
        capability=capability,
        peaks=peaks,
        memory_bandwidth=bandwidth * 1e9,
        links=links,
    )


_PCIE3, _PCIE4, _PCIE5 = _pcie(16e9), _pcie(32e9), _pcie(64e9)
_VOLTA, _HOPPER = _nvlink(150e9, 6.25e9), _nvlink(450e9, 50e9)
_AMPERE, _BLACKWELL = _nvlink(300e9, 25e9), _nvlink(900e9, 50e9)

GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4", 14.5625, 140.9, (7, 5), _peaks(65, 8.1, bf16=False), 300, _PCIE3),
        _gpu("v100-16", 15.77, 310, (7, 0), _peaks(125, 15.7, bf16=False), 900, _VOLTA),
        _gpu("v100-32", 31.73, 310, (7, 0), _peaks(125, 15.7, bf16=False), 900, _VOLTA),
        _gpu("rtx-3090", 23.56, 256, (8, 6), _peaks(71, 35.6), 936, _PCIE4),
        _gpu("rtx-4090", 23.52, 426, (8, 9), _peaks(165.2, 82.6), 1008, _PCIE4),
        _gpu("rtx-5090", 31.36, 500, (12, 0), _peaks(209.5, 104.8), 1792, _PCIE5),
        _gpu("a10", 22.05, 256, (8, 6), _peaks(125, 31.2), 600, _PCIE4),
        _gpu("l4", 22.03, 426, (8, 9), _peaks(121, 30.3), 300, _PCIE4),
        _gpu("l40s", 44.39, 426, (8, 9), _peaks(362, 91.6), 864, _PCIE4),
        _gpu("a40", 44.34, 256, (8, 6), _peaks(149.7, 37.4), 696, _PCIE4),
        _gpu("a100-40", 39.38, 420, (8, 0), _peaks(312, 19.5), 1555, _AMPERE),
        _gpu("a100-80", 79.14, 420, (8, 0), _peaks(312, 19.5), 2039, _AMPERE),
        _gpu("h100", 79.10, 616, (9, 0), _peaks(989, 67), 3350, _HOPPER),
        _gpu("h200", 139.80, 616, (9, 0), _peaks(989, 67), 4800, _HOPPER),
        _gpu("b200", 178.35, 700, (10, 0), _peaks(2250, 75), 8000, _BLACKWELL),
    )
}
"""From data sheets: V100, A100, H100 and later in the form with NVLink (SXM), others with PCIe."""


def gpu_named(name: str) -> Gpu:
    """Returns the GPU of a name in GPUS, in any case and with spaces or underscores for hyphens.

    Raises ConfigError, with the nearest names, if there is none.
    """
    wanted = "-".join(name.lower().replace("_", " ").replace("-", " ").split())
    wanted = wanted.removeprefix("nvidia-").removeprefix("tesla-").removeprefix("geforce-")
    if wanted in GPUS:
        return GPUS[wanted]
    starting = [known for known in GPUS if wanted and known.startswith(wanted[:40])]
    near = starting or difflib.get_close_matches(wanted[:40], list(GPUS), n=3, cutoff=0.4)
    raise ConfigError(
        f'--gpu: no GPU is called "{excerpt(name)}"',
        key="--gpu",
        value=name,
        hint=f"use {' or '.join(near or GPUS)}, or give its memory: --memory 16GiB",
    )
