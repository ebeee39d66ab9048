"""Bytes that FSDP2 holds, as this package and Accelerate wrap a model."""

from collections.abc import Sequence

import torch

from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.optim import OPTIMIZERS
from trainer.planning.held_memory import FP32, EngineMemory, Held, PlannedParameter
from trainer.planning.launches import PlannedLaunch
from trainer.recipe.training import Optimizer


def fsdp2_memory(
    parameters: Sequence[PlannedParameter],
    launch: PlannedLaunch,
    precision: Precision,
    optimizer: Optimizer,
) -> EngineMemory:
    """Returns the memory under FSDP2, exact but for `buckets`.

    Each parameter is sharded by its first dimension, padded; shards of trained ones are fp32.

    Layers are gathered one at a time and the next one ahead; what is outside of layers stays whole
    from the forward to the end of the backward. Gradients of a layer are reduced in fp32 while
    those of the layer before are on their way.
    """
    computed = COMPUTE_DTYPES[precision]
    kind, weights, gradients, moments = OPTIMIZERS[optimizer.name], 0, 0, 0
    gathered: dict[int | None, int] = {None: 0}
    reduced: dict[int | None, int] = {None: 0}
    for parameter in parameters:
        shape = parameter.shape or (1,)
        part = (-(-shape[0] // launch.shards), *shape[1:])
        count, layer = torch.Size(part).numel(), parameter.layer
        weights += count * (FP32 if parameter.trainable else parameter.dtype.itemsize)
        size = parameter.num_weights * parameter.bytes_each(computed)
        gathered[layer] = gathered.get(layer, 0) + size
        if parameter.trainable:
            gradients += FP32 * count
            moments += kind.moment_bytes(part, optimizer)
            reduced[layer] = reduced.get(layer, 0) + parameter.num_weights
    root = gathered.pop(None)
    layer, trained = max(gathered.values(), default=0), max(reduced.values(), default=0)
    forward = root + 3 * layer
    size = computed.itemsize
    backward = root + 2 * layer + (size + 2 * FP32) * trained
    buckets = max(forward, backward, root + (size + FP32) * reduced[None] + FP32 * trained)
    held = Held(weights=weights, gradients=gradients, moments=moments, buckets=buckets)
    return EngineMemory(rank=held)
