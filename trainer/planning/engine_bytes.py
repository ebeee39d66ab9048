"""Bytes that a rank holds under DDP, ZeRO and FSDP2, by what they hold."""

from trainer.planning.launches import BUCKET, LIVE, SUB_GROUP, Engine


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
