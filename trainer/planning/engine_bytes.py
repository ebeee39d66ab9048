"""Bytes that an engine holds on a rank, on its host and on its disk, by what they hold.

Weights, gradients, masters and moments are exact, padding included; tests compare them with real
engines. Activations are not included.
"""

from collections.abc import Iterable, Sequence

from trainer.engines.precision import Precision
from trainer.optim import OPTIMIZERS
from trainer.planning.fsdp2_bytes import fsdp2_memory
from trainer.planning.held_memory import EngineMemory, Held, PlannedParameter
from trainer.planning.launches import PlannedLaunch
from trainer.planning.zero_bytes import zero_1_or_2_memory, zero_3_memory
from trainer.recipe.training import Optimizer


def engine_memory(
    parameters: Sequence[PlannedParameter],
    launch: PlannedLaunch,
    precision: Precision,
    optimizer: Optimizer,
    *,
    width: int = 0,
) -> EngineMemory:
    """Returns what the engine holds for `parameters`; each tied weight is given once.

    `width` is the model's hidden size, from which "auto" sizes of ZeRO-3 follow.
    """
    match launch.engine:
        case "none" | "ddp":
            return _whole(parameters, launch, optimizer)
        case "fsdp2":
            return fsdp2_memory(parameters, launch, precision, optimizer)
        case "zero1" | "zero2":
            return zero_1_or_2_memory(parameters, launch, precision, optimizer)
        case _:
            return zero_3_memory(parameters, launch, precision, optimizer, width)


def _whole(
    parameters: Sequence[PlannedParameter], launch: PlannedLaunch, optimizer: Optimizer
) -> EngineMemory:
    """Returns the memory of whole states; DDP's buckets are a second copy of the gradients."""
    kind = OPTIMIZERS[optimizer.name]
    trained = [parameter for parameter in parameters if parameter.trainable]
    gradients = _stored(trained)
    held = Held(
        weights=_stored(parameters),
        gradients=gradients,
        moments=sum(kind.moment_bytes(parameter.shape, optimizer) for parameter in trained),
        buckets=gradients if launch.processes > 1 else 0,
        update=gradients if launch.processes > 1 else 0,  # buckets stay
    )
    return EngineMemory(rank=held)


def _stored(parameters: Iterable[PlannedParameter]) -> int:
    return sum(parameter.num_weights * parameter.dtype.itemsize for parameter in parameters)
