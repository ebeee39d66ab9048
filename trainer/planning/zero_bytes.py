"""Bytes that DeepSpeed's ZeRO holds, by its partitioning in 0.19 as this package configures it."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.optim import OPTIMIZERS
from trainer.planning.held_memory import FP32, EngineMemory, Held, PlannedParameter
from trainer.planning.launches import BUCKET, PlannedLaunch
from trainer.recipe.training import Optimizer

FP64 = 8
"""Bytes of an element of a gradient while its norm is computed, one parameter at a time."""


def zero_1_or_2_memory(
    parameters: Sequence[PlannedParameter],
    launch: PlannedLaunch,
    precision: Precision,
    optimizer: Optimizer,
) -> EngineMemory:
    """Returns the memory under ZeRO-1 or 2, in which masters exist in fp32, too.

    Trained weights lie in a flat buffer for each group, padded to twice the ranks.
    """
    computed = COMPUTE_DTYPES[precision]
    size, ranks = computed.itemsize, launch.shards
    trained = [parameter.num_weights for parameter in parameters if parameter.trainable]
    totals = [sum(p.num_weights for p in group) for group in _groups(parameters)]
    flats = [_padded(total, 2 * ranks) for total in totals]
    shares = [flat // ranks for flat in flats]
    share, whole = sum(shares), sum(trained)
    frozen = sum(p.num_weights * p.bytes_each(computed) for p in parameters if not p.trainable)
    weights = frozen + size * sum(flats)
    moments = sum(OPTIMIZERS[optimizer.name].moment_bytes((one,), optimizer) for one in shares)
    buckets = size * (launch.bucket or BUCKET) * (2 if launch.overlapping else 1)
    norm = FP64 * min(max(trained, default=0), share)
    touched = _touched(parameters, ranks)
    if launch.engine == "zero1":  # only gradients that it updates are left, and a flat copy
        gradients, cast = size * whole, 0 if size == FP32 else FP32 * share
        needed = size * touched + max(size * share + cast, norm)
        update = max(0, needed - gradients)
    elif size == FP32:  # the sum of micro-batches and the last one, of whole parameters
        gradients = FP32 * touched
        update = max(FP32 * share, norm)
        buckets += gradients
    else:  # one fp32 buffer, which the update takes as it is
        gradients, update = FP32 * share, norm
    if launch.offload_optimizer == "none":
        held = Held(
            weights=weights,
            gradients=gradients,
            masters=FP32 * share,
            moments=moments,
            buckets=buckets,
            update=update,
        )
        return EngineMemory(rank=held)
    largest = size * max(trained, default=0)  # a gradient on its way to the host
    on_rank = gradients if launch.engine == "zero2" and size != FP32 else 0
    rank = Held(
        weights=weights, gradients=on_rank, buckets=buckets + largest + norm, update=largest
    )
    host = Held(
        weights=size * share,
        gradients=FP32 * share + (0 if on_rank else size * share),
        masters=FP32 * share,
        moments=moments,
        buckets=largest,
        update=largest,
    )
    return EngineMemory(rank=rank, host=host)


def zero_3_memory(
    parameters: Sequence[PlannedParameter],
    launch: PlannedLaunch,
    precision: Precision,
    optimizer: Optimizer,
    width: int,
) -> EngineMemory:
    """Returns the memory under ZeRO-3 or hpZ.

    Each parameter is padded to the ranks; small ones stay whole on every rank besides.
    """
    computed = COMPUTE_DTYPES[precision]
    size, ranks = computed.itemsize, launch.shards
    persistence = 10 * width if launch.persistence is None else launch.persistence
    bucket = size * (width * width if launch.bucket is None else launch.bucket)
    kept = [p for p in parameters if p.num_weights <= persistence]
    persistent = sum(p.num_weights * p.bytes_each(computed) for p in kept)
    weights = sum(-(-p.num_weights // ranks) * p.bytes_each(computed) for p in parameters)
    second = 0
    if launch.engine == "hpz":
        near = min(launch.second_copy or launch.node_size, ranks)
        second = sum(
            -(-_padded(p.num_weights, ranks) // near) * p.bytes_each(computed)
            for p in parameters
            if p.num_weights > persistence
        )
    sub_groups = _sub_groups(parameters, launch)
    share, largest = sum(sub_groups), max(sub_groups, default=0)
    moments = sum(OPTIMIZERS[optimizer.name].moment_bytes((one,), optimizer) for one in sub_groups)
    everything = sum(p.num_weights * p.bytes_each(computed) for p in parameters)
    gathered = min(everything, size * launch.live)
    states = {"gradients": FP32 * share, "masters": FP32 * share, "moments": moments}
    flat_copy = FP32 * largest
    trained = [p.num_weights for p in parameters if p.trainable]
    norm = FP64 * -(-max(trained, default=0) // ranks)
    update = max(flat_copy, norm) + bucket + persistent
    working = {"buckets": gathered + bucket, "update": update}
    on_rank = weights + second if launch.offload_parameters == "none" else second
    in_memory = Held(weights=weights if launch.offload_parameters == "cpu" else 0)
    on_disk = Held(weights=weights if launch.offload_parameters == "nvme" else 0)
    if launch.offload_optimizer == "none":
        rank = Held(weights=on_rank, **states, **working)
        return EngineMemory(rank=rank, host=in_memory, nvme=on_disk)
    rank = Held(weights=on_rank, buckets=gathered + bucket + norm, update=bucket + persistent)
    if launch.offload_optimizer == "nvme":
        host = replace(
            in_memory,
            gradients=FP32 * share,
            update=4 * flat_copy,  # `buffer_count` of the optimizer's swapper
        )
        return EngineMemory(rank=rank, host=host, nvme=replace(on_disk, **states))
    twice = 2 * FP32 * share  # where they add up, and those of the update
    host = replace(in_memory, **(states | {"gradients": twice}))
    return EngineMemory(rank=rank, host=host, nvme=on_disk)


def _sub_groups(parameters: Sequence[PlannedParameter], launch: PlannedLaunch) -> list[int]:
    """Returns the weights of this rank that ZeRO-3 updates at once."""
    found: list[int] = []
    for group in _groups(parameters):
        shares = [-(-p.num_weights // launch.shards) for p in group]
        pending = 0
        for share in shares:
            pending += share
            if pending >= launch.sub_group:
                found.append(pending)
                pending = 0
        found += [pending] if pending else []
    return found


def _groups(parameters: Iterable[PlannedParameter]) -> list[list[PlannedParameter]]:
    """Returns the trained parameters of the optimizer's groups: with and without decay."""
    trained = [parameter for parameter in parameters if parameter.trainable]
    groups = [[p for p in trained if (len(p.shape) >= 2) == decays] for decays in (True, False)]
    return [group for group in groups if group]


def _touched(parameters: Iterable[PlannedParameter], ranks: int) -> int:
    """Returns the weights of all parameters of which a rank has a part; the most of any rank."""
    touched = [0] * ranks
    for group in _groups(parameters):
        share = _padded(sum(p.num_weights for p in group), 2 * ranks) // ranks
        start = 0
        for parameter in group:
            end = start + parameter.num_weights
            for rank in range(start // share, -(-end // share)):
                touched[rank] += parameter.num_weights
            start = end
    return max(touched)


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
