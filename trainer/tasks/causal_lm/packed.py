"""Packed sequences: several examples in one sequence, each computed as if it were alone."""

import inspect
from typing import Any

import torch
from torch import Tensor

from trainer.errors import ConfigError


def check_packing(model_config: Any, max_seq_length: int) -> None:
    """Raises ConfigError if packed examples would see each other in this causal language model."""
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING

    model: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(model_config)]
    kinds = set[str](getattr(model_config, "layer_types", None) or ())
    window: int | None = getattr(model_config, "sliding_window", None)
    if kinds and "sliding_attention" not in kinds:
        window = None
    reason = None
    if "position_ids" not in inspect.signature(model.forward).parameters:
        reason = "takes no position_ids"
    elif getattr(model_config, "alibi", False):
        reason = "knows positions by their distance in the sequence"
    elif getattr(model, "_is_stateful", False) or kinds - {"full_attention", "sliding_attention"}:
        reason = "has layers that take no mask"
    elif window is not None and window < max_seq_length:  # the mask would replace the window
        reason = f"looks back {window} tokens only and batch.max_seq_length is {max_seq_length}"
    if reason is not None:
        raise ConfigError(
            f"task.packing: a {model_config.model_type} {reason}, so packed examples would see "
            f"each other, or more than they do alone",
            key="task.packing",
            value=True,
            hint="set it to false",
        )


def apart(position_ids: Tensor, dtype: torch.dtype) -> Tensor:
    """Returns a causal additive mask [batch, 1, seq, seq] that keeps packed examples apart.

    An example begins at each position 0. An additive mask is right for every implementation of
    attention: eager attention misreads a boolean one, and most models ignore positions here.
    """
    example = (position_ids == 0).cumsum(-1)
    seen = (example[:, :, None] == example[:, None, :]).tril()
    mask = torch.zeros(seen.shape, dtype=dtype, device=position_ids.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def attention_dtype(model: Any) -> torch.dtype:
    """Returns the current type of attention scores, which the mask must have, too."""
    kind = next(model.parameters()).device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else model.dtype
