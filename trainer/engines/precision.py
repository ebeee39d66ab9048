"""The precision of a run, checked against the device."""

from typing import Literal

import torch

from trainer.engines.deepspeed import deepspeed_has_fp16
from trainer.errors import ConfigError

Precision = Literal["fp32", "bf16", "fp16"]

COMPUTE_DTYPES: dict[Precision, torch.dtype] = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}


def automatic_precision(capability: tuple[int, int] | None) -> Precision:
    """Returns the precision that `auto` is on a GPU of this compute capability; None is a CPU."""
    if capability is None:
        return "fp32"
    return "bf16" if capability >= (8, 0) else "fp16"


def resolve_precision(requested: Precision | Literal["auto"]) -> Precision:
    """Returns the precision of a run; `auto` follows the GPU's compute capability.

    Raises ConfigError for bf16 below capability 8.0, which emulates it slowly, and for fp16 on a
    device that does not compute in it.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if requested == "auto":
        return automatic_precision(capability)
    if requested == "bf16" and capability is not None and capability < (8, 0):
        raise ConfigError(
            f"precision: bf16 is emulated on {torch.cuda.get_device_name()}",
            key="precision",
            value=requested,
            hint="use fp16 or auto",
        )
    if requested == "fp16" and capability is None and not deepspeed_has_fp16():
        raise ConfigError(
            "precision: fp16 needs a GPU",
            key="precision",
            value=requested,
            hint="use fp32, bf16 or auto",
        )
    return requested
