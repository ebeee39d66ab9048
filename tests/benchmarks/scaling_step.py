"""One optimizer step as events on two streams, computing and sending, layer by layer."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scaling_bytes import (
    BUCKET,
    LIVE,
    Engine,
    Operation,
    kept_weights,
    sent_within_and_between,
)

DDP_BUCKET = 25 * 2**20 // 4
MATRICES = 7
"""Of a Llama layer: with "auto" buckets ZeRO-3 gathers and reduces each by itself."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """GPUs in nodes; memory in bytes, bandwidths in bytes a second of one GPU in one direction.

    Latencies, in seconds, are those of one hop of a ring, of a tree between nodes and of a call,
    in NCCL's own cost model (hwLat and baseLat in its src/graph/tuning.cc).
    """

    node_size: int
    memory: float
    memory_bandwidth: float
    flops: float
    inside_bandwidth: float
    between_bandwidth: float
    inside_latency: float
    between_latency: float
    tree_latency: float
    call_latency: float
    compute_share: float = 0.4  # achieved of flops: an assumption
    link_share: float = 0.8  # achieved of the bandwidths: an assumption
    tokens: int = 8192  # of one micro-batch on one GPU: an assumption


def ring_seconds(
    cluster: Cluster, operation: Operation, num_bytes: float, ranks: int, calls: int = 1
) -> float:
    """Returns the seconds of `calls` collectives that move `num_bytes` together."""
    if ranks == 1:
        return 0.0
    inside, between = sent_within_and_between([(operation, num_bytes, ranks)], cluster.node_size)
    moving = max(inside / cluster.inside_bandwidth, between / cluster.between_bandwidth)
    nodes = math.ceil(ranks / cluster.node_size)
    hops = (ranks - nodes) * cluster.inside_latency + (nodes - 1) * cluster.between_latency
    if operation == "all_reduce":
        tree = (ranks / nodes - 1) * cluster.inside_latency
        hops = 2 * min(hops, tree + math.log2(nodes) * cluster.tree_latency)
    return moving / cluster.link_share + calls * (cluster.call_latency + hops)


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
    parameters: float,
    ranks: int,
    work: Work,
    seconds: Seconds,
    *,
    node_size: int = 8,
    live: float = LIVE,
    overlapping: bool = True,
) -> float:
    """Returns the seconds of one optimizer step, from events on a computing and a sending stream.

    Layers are equal. The weights of a layer are asked for when the one before begins, gradients
    are sent when a bucket is full; a stream does one thing at a time. `overlapping` is false
    where sending keeps the processor from computing.
    """
    layer, sharded = parameters / work.num_layers, engine in ("zero3", "hpz")
    bucket = {"ddp": DDP_BUCKET, "zero1": BUCKET, "zero2": BUCKET}.get(engine, layer / MATRICES)
    width = 4 if engine == "ddp" else 2
    waits = engine == "zero1" or not overlapping  # overlap_comm is off in ZeRO-1
    computed = sent = 0.0  # when each stream is free

    def send(operation: Operation, weights: float, group: int, calls: float, ready: float) -> float:
        nonlocal sent
        if not weights or group == 1:
            return ready
        taken = seconds(operation, width * weights, group, math.ceil(calls))
        sent = max(sent, ready) + taken
        return sent

    for micro in range(work.accumulation):
        last = micro == work.accumulation - 1
        for backward in (False, True):
            group = min(node_size, ranks) if engine == "hpz" and (micro or backward) else ranks
            kept = kept_weights(parameters, live) if backward else 0.0
            asked = [layer - min(layer, max(0.0, kept - i * layer)) for i in range(work.num_layers)]
            each = (work.backward if backward else work.forward) / work.num_layers
            reducing = backward and (sharded or engine == "zero2" or last)
            pending, arrived = 0.0, computed
            if sharded:
                arrived = send("all_gather", asked[0], group, MATRICES, computed)
            for index in range(work.num_layers):
                begin = max(computed, arrived)
                if sharded and index + 1 < work.num_layers:
                    arrived = send("all_gather", asked[index + 1], group, MATRICES, begin)
                computed = each + (begin if overlapping else max(begin, sent))
                pending += layer
                if reducing and (pending >= bucket or index == work.num_layers - 1):
                    how: Operation = "reduce_scatter" if sharded else "all_reduce"
                    done = send(how, pending, ranks, pending / bucket, computed)
                    pending, computed = 0.0, done if waits else computed
    computed = max(computed, sent) + work.update
    if engine in ("zero1", "zero2"):
        computed = send("all_gather", parameters, ranks, 1, computed)
    return computed
