"""One optimizer step as events on two streams, computing and sending, layer by layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from trainer.planning.collectives import (
    Operation,
    Volume,
    kept_weights,
    sent_within_and_between,
)
from trainer.planning.gpus import Links
from trainer.planning.launches import BUCKET, LIVE, Engine

DDP_BUCKET = 25 * 2**20
"""Bytes of gradients that DDP reduces at once."""
MATRICES = 7
"""Of a Llama layer: with "auto" buckets ZeRO-3 gathers and reduces each by itself."""
LINK_SHARE = 0.8
"""Share of the links' bandwidths that is reached: an assumption."""


def ring_seconds(
    links: Links, operation: Operation, num_bytes: float, ranks: int, calls: int = 1
) -> float:
    """Returns the seconds of `calls` collectives that move `num_bytes` together.

    Latencies add up as in NCCL's own cost model (src/graph/tuning.cc).
    """
    if ranks == 1:
        return 0.0
    inside, between = sent_within_and_between([(operation, num_bytes, ranks)], links.node_size)
    moving = max(inside / links.inside_bandwidth, between / links.between_bandwidth)
    nodes = math.ceil(ranks / links.node_size)
    hops = (ranks - nodes) * links.inside_latency + (nodes - 1) * links.between_latency
    if operation == "all_reduce":
        tree = (ranks / nodes - 1) * links.inside_latency
        hops = 2 * min(hops, tree + math.log2(nodes) * links.tree_latency)
    return moving / LINK_SHARE + calls * (links.call_latency + hops)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Seconds of one rank's own computing, which all engines have."""

    forward: float
    """Of one micro-batch; so is `backward`."""
    backward: float
    update: float
    num_layers: int
    accumulation: int = 1

    @property
    def seconds(self) -> float:
        return self.accumulation * (self.forward + self.backward) + self.update


Seconds = Callable[[Operation, float, int, int], float]
"""(operation, bytes, ranks, calls) -> seconds"""


def step_seconds(
    engine: Engine,
    volume: Volume,
    ranks: int,
    work: Work,
    seconds: Seconds,
    *,
    node_size: int = 8,
    live: float = LIVE,
    bucket: float = BUCKET,
    replicas: int = 1,
    overlapping: bool = True,
) -> float:
    """Returns the seconds of one optimizer step, from events on a computing and a sending stream.

    Layers are equal. The weights of a layer are asked for when the one before begins, gradients
    are sent when a bucket is full; a stream does one thing at a time. `bucket` is that of ZeRO-1
    and 2, in weights. `overlapping` is false if sending keeps the processor from computing.
    """
    if engine == "none":
        return work.seconds
    sharded, layers = engine in ("zero3", "hpz", "fsdp2"), work.num_layers
    layer, layer_bytes = volume.weights / layers, volume.weight_bytes / layers
    gradient = volume.gradient_bytes / layers
    matrices = 1 if engine == "fsdp2" else MATRICES  # FSDP2 gathers a layer in one call
    per_weight = volume.gradient_bytes / volume.weights
    full = {"ddp": DDP_BUCKET, "zero1": bucket * per_weight, "zero2": bucket * per_weight}
    bucket_bytes = full.get(engine, gradient / matrices)
    waits = engine == "zero1" or not overlapping  # overlap_comm is off in ZeRO-1
    group = ranks // replicas
    computed = sent = 0.0  # when each stream is free

    def send(operation: Operation, num_bytes: float, ranks: int, calls: float, at: float) -> float:
        nonlocal sent
        if not num_bytes or ranks == 1:
            return at
        taken = seconds(operation, num_bytes, ranks, math.ceil(calls))
        sent = max(sent, at) + taken
        return sent

    for micro in range(work.accumulation):
        last = micro == work.accumulation - 1
        for backward in (False, True):
            near = engine == "hpz" and (micro or backward)
            gathering = min(node_size, ranks) if near else group
            kept = kept_weights(volume.weights, live) if backward and engine != "fsdp2" else 0.0
            asked = [
                layer_bytes * (1 - min(layer, max(0.0, kept - i * layer)) / layer)
                for i in range(layers)
            ]
            each = (work.backward if backward else work.forward) / layers
            reducing = backward and (sharded or engine == "zero2" or last)
            pending, arrived = 0.0, computed
            if sharded:
                arrived = send("all_gather", asked[0], gathering, matrices, computed)
            for index in range(layers):
                begin = max(computed, arrived)
                if sharded and index + 1 < layers:
                    arrived = send("all_gather", asked[index + 1], gathering, matrices, begin)
                computed = each + (begin if overlapping else max(begin, sent))
                pending += gradient
                if reducing and (pending >= bucket_bytes or index == layers - 1):
                    calls = pending / bucket_bytes if bucket_bytes else 1
                    how: Operation = "reduce_scatter" if sharded else "all_reduce"
                    done = send(how, pending, group, calls, computed)
                    if replicas > 1:
                        done = send("all_reduce", pending / group, replicas, calls, computed)
                    pending, computed = 0.0, done if waits else computed
    computed = max(computed, sent) + work.update
    if engine in ("zero1", "zero2"):
        computed = send("all_gather", volume.gradient_bytes, ranks, 1, computed)
    return computed
