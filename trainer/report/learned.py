"""What of the trainable parameters learned nothing: without a gradient, or adapters still at 0."""

import re
from collections.abc import Collection, Iterable
from typing import Any

from torch import nn

from trainer.engines.portable_state import Parameters, full_moments

MOMENTS = ("exp_avg_sq", "absmax2", "state2")
"""Entries of Adam's state that stay 0 as long as every gradient is 0. The momentum of SGD does not,
because weight decay is in it."""


def without_gradient(
    objective: nn.Module, optimizer: Any, parameters: Parameters
) -> list[str] | None:
    """Returns the names of the trainable parameters whose gradient was 0 in every step, if any.

    The moments of the optimizer say it, also of steps before the run was resumed. None if they
    cannot say it: SGD has no such moments, nor has a run whose steps were all skipped.
    Repeated layers are folded, as `folded` says. Collective: every rank calls it.
    """
    moved = set[str]()
    for moment in full_moments(objective, optimizer, parameters):
        name, _, entry = moment.name.rpartition("|")
        if entry in MOMENTS and name not in moved:
            values = moment.gather()
            # If an 8-bit moment is 0, its codes are not, but its scales are.
            if values.is_floating_point() and values.any():
                moved.add(name)
    if not moved:
        return None
    return folded((name for name in parameters if name not in moved), parameters)


def zero_adapters(model: nn.Module) -> list[str]:
    """Returns the names of the layers whose LoRA adapter adds nothing, because its B is all 0.

    The model must be whole on this rank. Repeated layers are folded, as `folded` says.
    """
    weights = {
        name.partition(".lora_")[0]: weight
        for name, weight in model.named_parameters()
        if ".lora_B." in name or ".lora_embedding_B." in name
    }
    return folded((name for name, weight in weights.items() if not weight.any()), weights)


def folded(names: Iterable[str], among: Collection[str]) -> list[str]:
    """Returns names without PEFT's prefix; if the names of all layers are there, one with * stands
    for them.

    `among` are the names of all layers.
    """
    layers: dict[str, int] = {}
    for name in among:
        layers[_pattern(name)] = layers.get(_pattern(name), 0) + 1
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(_pattern(name), []).append(name)
    shown = [
        name
        for pattern, group in groups.items()
        for name in ([pattern] if 1 < len(group) == layers[pattern] else group)
    ]
    return [name.removeprefix("base_model.model.") for name in shown]


def _pattern(name: str) -> str:
    return re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name)
