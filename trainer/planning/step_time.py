"""Seconds of an optimizer step on GPUs, as a range, from counted operations and data sheets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from trainer.engines.precision import Precision
from trainer.planning.collectives import Operation, Volume
from trainer.planning.engine_steps import Work, ring_seconds, step_seconds
from trainer.planning.gpus import Gpu
from trainer.planning.launches import BUCKET, PlannedLaunch

Kind = Literal["4-bit", "8-bit", "16-bit", "fp32"]
SMALL_WIDTH = 1024
"""Hidden size up to which a model counts as small: its matrices do not fill a GPU."""
SHARES: Mapping[tuple[Kind, bool], tuple[float, float]] = {
    ("4-bit", False): (0.10, 0.15),
    ("4-bit", True): (0.04, 0.08),
    ("8-bit", False): (0.08, 0.15),
    ("8-bit", True): (0.03, 0.08),
    ("16-bit", False): (0.17, 0.45),
    ("16-bit", True): (0.05, 0.25),
    ("fp32", False): (0.40, 0.85),
    ("fp32", True): (0.15, 0.60),
}
"""(low, high) share of the peak that is reached, by how weights are stored and whether the model is
small.

Measured: 4 bits, and the low end of 16 bits, by 29 LoRA steps on a T4 with SDPA and checkpointing,
with operations as traced (width 1,536 and more: 0.10 to 0.14 in 4 bits, 0.17 to 0.25 in 16; width
576 and 960: 0.04 to 0.07 and 0.05 to 0.17; under eager attention shares are lower). Assumed: the
high end of 16 bits, which large models reach on A100 and H100, 8 bits, and fp32, of which the peak
is that of CUDA cores.
"""
LAUNCH = (4e-6, 50e-6)
"""Fewest and most seconds until Python has launched a kernel, which small models wait for.

Measured: LoRA steps of 1,024 tokens of the smallest model on a T4, 36e-6 a kernel, and 45e-6 in 4
bits. Assumed: the fewest.
"""
UPDATE_SHARE = 0.6
"""Share of the memory bandwidth that an optimizer's update reaches: an assumption."""
HOST_BANDWIDTH, NVME_BANDWIDTH = 20e9, 2e9
"""Bytes a second of an optimizer on the host, shared by the processes of a node, and of an NVMe
disk: assumptions."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """From the fewest to the most seconds."""

    low: float
    high: float

    def times(self, number: float) -> "Span":
        return Span(low=self.low * number, high=self.high * number)


@dataclass(frozen=True, kw_only=True)
class StepTime:
    step: Span
    """Seconds of one optimizer step."""
    shares: tuple[float, float]
    """Share of the peak assumed for the longer and for the shorter time."""
    waiting: tuple[float, float]
    """Share of a step in which a GPU waits for others: in the shorter time and in the longer."""
    tokens_per_second: Span
    """Of all processes together; `high` is that of the shorter time."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "seconds_of_a_step": [self.step.low, self.step.high],
            "share_of_peak": list(self.shares),
            "share_of_waiting": list(self.waiting),
            "tokens_per_second": [self.tokens_per_second.low, self.tokens_per_second.high],
        }

    def of_steps(self, num_steps: float) -> Span:
        """Returns the seconds of several steps, such as those of an epoch."""
        return self.step.times(num_steps)


def step_time(
    *,
    flops: float,
    kernels: int,
    tokens: float,
    accumulation: int,
    updated_bytes: float,
    volume: Volume,
    num_layers: int,
    launch: PlannedLaunch,
    gpu: Gpu | None,
    precision: Precision,
    kind: Kind,
    width: int,
) -> StepTime | None:
    """Returns the time of an optimizer step, or None without a GPU: no peak of a CPU is known.

    `flops` are those of forward and backward, recomputation included, of all micro-batches that one
    rank computes in a step, and `kernels` what it launches for them, one after the other; `tokens`
    are those of a step over all ranks. `updated_bytes` are what the optimizer of one rank reads and
    writes, see `bytes_of_update`. Returns None, too, for a precision that the GPU emulates.
    """
    if gpu is None or precision not in gpu.peaks:
        return None
    shares = SHARES[kind, width <= SMALL_WIDTH]
    seconds: list[float] = []
    waiting: list[float] = []
    for share, launching in zip(shares, reversed(LAUNCH), strict=True):
        computing = flops / (gpu.peaks[precision] * share)
        micro_batch = max(computing, kernels * launching) / accumulation
        work = Work(
            forward=micro_batch / 3,
            backward=micro_batch * 2 / 3,
            update=_update_seconds(updated_bytes, launch, gpu),
            num_layers=max(1, num_layers),
            accumulation=accumulation,
        )
        whole = _with_sending(work, volume, launch, gpu)
        seconds.append(whole)
        waiting.append(max(0.0, 1 - work.seconds / whole) if whole else 0.0)
    high, low = seconds
    return StepTime(
        step=Span(low=low, high=high),
        shares=shares,
        waiting=(waiting[1], waiting[0]),
        tokens_per_second=Span(
            low=tokens / high if high else 0.0, high=tokens / low if low else 0.0
        ),
    )


def bytes_of_update(states: float) -> float:
    """Returns the bytes that an optimizer moves, from those of the states that it updates.

    Weights, masters and moments are read and written, gradients are read: nearly twice the states.
    """
    return 2 * states


def kind_of(mode: str, precision: Precision) -> Kind:
    """Returns how the weights of a tuning mode are stored while they are used."""
    if mode == "qlora":
        return "4-bit"
    if mode == "int8_lora":
        return "8-bit"
    return "fp32" if precision == "fp32" else "16-bit"


def _with_sending(work: Work, volume: Volume, launch: PlannedLaunch, gpu: Gpu) -> float:
    node_size = min(gpu.links.node_size, launch.node_size)
    links = replace(gpu.links, node_size=node_size)

    def seconds(operation: Operation, num_bytes: float, ranks: int, calls: int) -> float:
        return ring_seconds(links, operation, num_bytes, ranks, calls)

    return step_seconds(
        launch.engine,
        volume,
        launch.processes,
        work,
        seconds,
        node_size=launch.second_copy or node_size,
        live=launch.live,
        bucket=launch.bucket or BUCKET,
        replicas=launch.replicas,
        overlapping=launch.engine != "zero2" or launch.overlapping,
    )


def _update_seconds(updated_bytes: float, launch: PlannedLaunch, gpu: Gpu) -> float:
    if launch.offload_optimizer == "cpu":
        return updated_bytes * launch.node_size / HOST_BANDWIDTH
    if launch.offload_optimizer == "nvme":
        return updated_bytes * launch.node_size / NVME_BANDWIDTH
    return updated_bytes / (gpu.memory_bandwidth * UPDATE_SHARE)
