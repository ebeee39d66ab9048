"""What the engines send in one optimizer step: formulas that tests/benchmarks/scaling.py checks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Self

from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.planning.held_memory import FP32, PlannedParameter
from trainer.planning.launches import LIVE, Engine

Operation = Literal["all_reduce", "all_gather", "reduce_scatter"]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """What a step of one model exchanges."""

    weights: float
    """Number of weights, trained or not."""
    weight_bytes: float
    """Bytes of all weights as they are gathered."""
    gradient_bytes: float
    """Bytes of all gradients as they are reduced."""

    @classmethod
    def of(cls, engine: Engine, parameters: float) -> Self:
        """Returns that of full tuning in 16 bits: DDP reduces fp32, FSDP2 fp32 from bf16."""
        reduced = 4 if engine in ("ddp", "fsdp2") else 2
        return cls(
            weights=parameters, weight_bytes=2 * parameters, gradient_bytes=reduced * parameters
        )


def volume_of(
    engine: Engine, parameters: Iterable[PlannedParameter], precision: Precision
) -> Volume:
    """Returns what a step of a model exchanges: weights and ZeRO's gradients in the type of the
    computations, packed weights as they are, gradients of DDP and FSDP2 in fp32."""
    computed = COMPUTE_DTYPES[precision]
    weights = weight_bytes = trained = 0
    for parameter in parameters:
        weights += parameter.num_weights
        weight_bytes += parameter.num_weights * parameter.bytes_each(computed)
        trained += parameter.num_weights if parameter.trainable else 0
    reduced = FP32 if engine in ("ddp", "fsdp2") else computed.itemsize
    return Volume(weights=weights, weight_bytes=weight_bytes, gradient_bytes=reduced * trained)


def kept_weights(weights: float, live: float = LIVE) -> float:
    """Returns how many weights ZeRO-3 keeps from a forward for its backward.

    Those that the backward reads again within `live` weights, which is half as many, and those
    that its prefetching reaches before the forward releases them: at most `live`, and in a Llama
    half of all. Found by measuring; DeepSpeed's PartitionedParameterCoordinator holds the rules.
    """
    return min(weights, max(live / 2, min(live, weights / 2)))


def collectives(
    engine: Engine,
    volume: Volume,
    ranks: int,
    *,
    accumulation: int = 1,
    node_size: int = 8,
    live: float = LIVE,
    replicas: int = 1,
) -> list[tuple[Operation, float, int]]:
    """Returns (operation, bytes of the whole tensor, ranks of the group) of one optimizer step.

    DeepSpeed's ZeRO-1 and 2 all-reduce gradients where the paper reduces and scatters them. FSDP2
    gathers weights for each forward and backward, and adds the shards of `replicas` up.
    """
    gradients, weights = volume.gradient_bytes, volume.weight_bytes
    if engine == "none":
        return []
    if engine == "ddp":
        return [("all_reduce", gradients, ranks)]
    if engine in ("zero1", "zero2"):
        times = accumulation if engine == "zero2" else 1
        return [("all_reduce", gradients * times, ranks), ("all_gather", gradients, ranks)]
    group = ranks // replicas
    reduced: tuple[Operation, float, int] = ("reduce_scatter", gradients * accumulation, group)
    if engine == "fsdp2":
        gathered: tuple[Operation, float, int] = ("all_gather", 2 * weights * accumulation, group)
        again: tuple[Operation, float, int] = (
            "all_reduce", gradients * accumulation / group, replicas,
        )  # fmt: skip
        return [gathered, reduced, *([again] if replicas > 1 else [])]
    share_kept = kept_weights(volume.weights, live) / volume.weights
    repeated = weights * (1 - share_kept)  # in each backward
    if engine == "zero3":
        return [("all_gather", (weights + repeated) * accumulation, ranks), reduced]
    near = repeated + (accumulation - 1) * (weights + repeated)  # the copy lasts until the update
    node = min(node_size, ranks)
    return [("all_gather", weights, ranks), ("all_gather", near, node), reduced]


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
