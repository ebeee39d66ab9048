"""What an engine shards, and temporary access to the whole model."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from enum import Enum
from typing import Any

from torch import nn

from trainer.engines.deepspeed_state import gathered, gathered_model, zero_stage
from trainer.engines.fsdp2_state import is_fsdp2, without_fsdp


class Sharding(Enum):
    """What an engine shards over ranks. The values are written to files of runs and checkpoints."""

    NOTHING = "nothing"
    ZERO_1 = "ZeRO-1"
    """Moments."""
    ZERO_2 = "ZeRO-2"
    """Moments and gradients."""
    ZERO_3 = "ZeRO-3"
    """Moments, gradients and weights."""
    FSDP2 = "FSDP2"
    """Moments, gradients and weights."""


def sharding_of(objective: nn.Module) -> Sharding:
    """Returns what shards an objective that an engine has wrapped."""
    if is_fsdp2(objective):
        return Sharding.FSDP2
    stage = zero_stage(objective)
    return Sharding(f"ZeRO-{stage}") if stage else Sharding.NOTHING


@contextmanager
def whole_model(objective: nn.Module) -> Generator[None]:
    """Context manager: inside, every rank has all weights, as a plain model that any code can use.

    It takes the memory of the whole model: under FSDP2 in the type of its weights, under ZeRO-3 in
    the type of the computations. Collective.
    """
    match sharding_of(objective):
        case Sharding.FSDP2:
            whole = without_fsdp(objective)
        case Sharding.ZERO_3:
            whole = gathered_model(objective)
        case _:
            whole = nullcontext()
    with whole:
        yield


def whole_weight(objective: nn.Module, weight: nn.Parameter) -> AbstractContextManager[Any]:
    """Context manager: inside, every rank has the whole of one weight under ZeRO-3. Collective."""
    if sharding_of(objective) is Sharding.ZERO_3:
        return gathered([weight])
    return nullcontext()
