"""The loss scale of fp16, kept by torch's GradScaler or by DeepSpeed."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from trainer.engines.deepspeed_state import set_zero_loss_scale, zero_loss_scale, zero_scaler


def loss_scale(objective: nn.Module, scaler: Any) -> dict[str, float] | None:
    """Returns the `scale` of fp16 and the `steps` since it last changed, or None without a scaler.

    `scaler` is torch's GradScaler, or None if the engine scales the loss itself.
    """
    if scaler is not None:
        state = scaler.state_dict()
        return {"scale": state["scale"], "steps": state["_growth_tracker"]}
    own = zero_scaler(objective)
    return None if own is None else zero_loss_scale(own)


def set_loss_scale(objective: nn.Module, scaler: Any, saved: Mapping[str, float]) -> None:
    """Sets the scale of a checkpoint, whichever engine wrote it."""
    own = zero_scaler(objective)
    if scaler is not None:
        state = scaler.state_dict()
        state |= {"scale": saved["scale"], "_growth_tracker": int(saved["steps"])}
        scaler.load_state_dict(state)
    elif own is not None:
        set_zero_loss_scale(own, saved)
