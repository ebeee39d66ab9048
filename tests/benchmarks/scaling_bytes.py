"""Bytes that a rank holds and sends under DDP and ZeRO: formulas, which scaling_measured.py checks.

They are those of this package's engines in bf16 or fp16 with AdamW: DDP keeps fp32 weights under
autocast, DeepSpeed computes in 16 bits and adds gradients up in fp32 from stage 2 on. Activations
are not included.
"""

from collections.abc import Sequence
from typing import Literal

Engine = Literal["ddp", "zero1", "zero2", "zero3", "hpz"]
Operation = Literal["all_reduce", "all_gather", "reduce_scatter"]

ENGINES: tuple[Engine, ...] = ("ddp", "zero1", "zero2", "zero3", "hpz")
"""hpz is ZeRO-3 with a second copy of the weights in each node: `zero_hpz_partition_size`."""
BUCKET = 500_000_000
"""Gradients that ZeRO-1 and 2 reduce at once: DeepSpeed's default `reduce_bucket_size`."""
SUB_GROUP = 1_000_000_000
"""Weights that ZeRO-3 updates at once: DeepSpeed's default `sub_group_size`."""
LIVE = 1_000_000_000
"""Whole weights that ZeRO-3 keeps: `stage3_max_live_parameters` and `stage3_max_reuse_distance`."""


def held_bytes(
    engine: Engine,
    parameters: int,
    ranks: int,
    *,
    node_size: int = 8,
    live: float = LIVE,
    bucket: float = BUCKET,
) -> dict[str, float]:
    """Returns the bytes on one rank while gradients add up, by what they hold.

    ZeRO paper (arXiv:1910.02054), section 3.1: 2 weights, 2 gradients and 12 of the optimizer for
    each parameter; here fp32 gradients from stage 2 on. `working` is what comes and goes: DDP's
    buckets and the 16-bit copies of autocast, ZeRO's buckets or, under ZeRO-3, whole weights; or,
    where that is more, the copies of gradients that ZeRO's update takes when those are gone.
    """
    whole, share = float(parameters), parameters / ranks
    if engine == "ddp":
        buckets = 4 * whole if ranks > 1 else 0.0
        held = {"weights": 4 * whole, "gradients": 4 * whole, "master": 0.0, "moments": 8 * whole}
        return held | {"working": 2 * whole + buckets}
    held = {"master": 4 * share, "moments": 8 * share}
    if engine == "zero1":  # the update takes its share in 16 bits and in fp32
        working = max(2 * bucket, 6 * share - 2 * whole)
        return held | {"weights": 2 * whole, "gradients": 2 * whole, "working": working}
    if engine == "zero2":  # two buckets by overlap_comm; the flat copy is read in its source
        working = max(4 * bucket, 4 * share)
        return held | {"weights": 2 * whole, "gradients": 4 * share, "working": working}
    second = 2 * whole / min(node_size, ranks) if engine == "hpz" else 0.0
    working = max(2 * min(whole, live), 4 * min(share, SUB_GROUP))
    return held | {"weights": 2 * share + second, "gradients": 4 * share, "working": working}


def kept_weights(parameters: float, live: float = LIVE) -> float:
    """Returns how many weights ZeRO-3 keeps from a forward for its backward.

    Those that the backward reads again within `live` weights, which is half as many, and those
    that its prefetching reaches before the forward releases them: at most `live`, and in a Llama
    half of all. Found by measuring; DeepSpeed's PartitionedParameterCoordinator holds the rules.
    """
    return min(parameters, max(live / 2, min(live, parameters / 2)))


def collectives(
    engine: Engine,
    parameters: float,
    ranks: int,
    *,
    accumulation: int = 1,
    node_size: int = 8,
    live: float = LIVE,
) -> list[tuple[Operation, float, int]]:
    """Returns (operation, bytes of the whole tensor, ranks of the group) of one optimizer step.

    DeepSpeed's ZeRO-1 and 2 all-reduce gradients where the paper reduces and scatters them.
    """
    half = 2 * parameters
    if engine == "ddp":
        return [("all_reduce", 4 * parameters, ranks)]
    if engine in ("zero1", "zero2"):
        times = accumulation if engine == "zero2" else 1
        return [("all_reduce", half * times, ranks), ("all_gather", half, ranks)]
    again = half - 2 * kept_weights(parameters, live)  # in each backward
    reduced: tuple[Operation, float, int] = ("reduce_scatter", half * accumulation, ranks)
    if engine == "zero3":
        return [("all_gather", (half + again) * accumulation, ranks), reduced]
    near = again + (accumulation - 1) * (half + again)  # the second copy lasts until the update
    group = min(node_size, ranks)
    return [("all_gather", half, ranks), ("all_gather", near, group), reduced]


def sent_bytes(operation: Operation, num_bytes: float, ranks: int) -> float:
    """Returns what each rank of a ring sends (Patarasuk and Yuan, 2009)."""
    rounds = 2 if operation == "all_reduce" else 1
    return rounds * num_bytes * (ranks - 1) / ranks


def sent_within_and_between(
    calls: Sequence[tuple[Operation, float, int]], node_size: int = 8
) -> tuple[float, float]:
    """Returns the bytes that each rank sends inside its node, and to other nodes.

    A ring over nodes leaves each of them once, so of `node_size` hops one goes between nodes.
    """
    inside = between = 0.0
    for operation, num_bytes, ranks in calls:
        sent = sent_bytes(operation, num_bytes, ranks)
        across = sent / node_size if ranks > node_size else 0.0
        inside, between = inside + sent - across, between + across
    return inside, between
