"""The loss scale of fp16, whichever scales: torch's GradScaler, or DeepSpeed for itself."""

from collections.abc import Mapping
from typing import Any

from torch import nn


def loss_scale(objective: nn.Module, scaler: Any) -> dict[str, float] | None:
    """Returns the `scale` of fp16 and its `steps` without overflow; None where nothing scales.

    `scaler` is torch's GradScaler, which an engine of its own does without.
    """
    if scaler is not None:
        kept = scaler.state_dict()
        return {"scale": kept["scale"], "steps": kept["_growth_tracker"]}
    found = zero_scaler(objective)
    if found is None:
        return None
    # The iteration of an overflow counts as the last one before the first without. DeepSpeed counts
    # on where torch begins anew, and torch would never reach a number that lies behind it.
    steps = found.cur_iter - found.last_overflow_iter - 1
    return {"scale": found.cur_scale, "steps": steps % found.scale_window}


def set_loss_scale(objective: nn.Module, scaler: Any, kept: Mapping[str, float]) -> None:
    """Goes on from the scale of a checkpoint, whichever engine wrote it."""
    found = zero_scaler(objective)
    if scaler is not None:
        state = scaler.state_dict()
        state |= {"scale": kept["scale"], "_growth_tracker": int(kept["steps"])}
        scaler.load_state_dict(state)
    elif found is not None:
        found.cur_scale = kept["scale"]
        found.last_overflow_iter, found.cur_iter = -1, int(kept["steps"])


def zero_scaler(objective: nn.Module) -> Any:
    """Returns what scales the loss under ZeRO in fp16, None elsewhere."""
    zero: Any = getattr(objective, "optimizer", None)
    scaler = getattr(zero, "loss_scaler", None)
    return scaler if scaler is not None and scaler.dynamic else None
