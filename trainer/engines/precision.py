"""The precision of a run, by what the device can compute in."""

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


def resolve_precision(asked: Precision | Literal["auto"]) -> Precision:
    """Returns what the device computes in: by compute capability, for emulated bf16 is slow.

    Raises ConfigError for bf16 before capability 8.0 and for fp16 without a GPU.
    """
    capability = torch.cuda.get_device_capability() if torch.cuda.is_available() else None
    if asked == "auto":
        if capability is None:
            return "fp32"
        return "bf16" if capability >= (8, 0) else "fp16"
    if asked == "bf16" and capability is not None and capability < (8, 0):
        raise ConfigError(
            f"precision: bf16 is emulated on {torch.cuda.get_device_name()}; use fp16 or auto"
        )
    if asked == "fp16" and capability is None and not deepspeed_has_fp16():
        raise ConfigError("precision: fp16 needs a GPU; use fp32, bf16 or auto")
    return asked
