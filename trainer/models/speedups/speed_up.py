"""All changes to a model that make a step faster and change no number beyond rounding."""

from typing import Any

import torch

from trainer.models.speedups.dropout import speed_up_dropout
from trainer.models.speedups.first_token import compute_first_token_alone
from trainer.models.speedups.row_gradients import use_row_gradients
from trainer.models.structure import plain_model


def speed_up(
    model: Any,
    optimizer: torch.optim.Optimizer,
    *,
    device: torch.device,
    is_wrapped: bool,
    needs_only_logits: bool,
    tokens_per_step: float,
) -> None:
    """Speeds up a tuned model, and the optimizer of its parameters, before an engine wraps them.

    `is_wrapped` says whether an engine will, `needs_only_logits` whether only the logits of the
    model are read. `tokens_per_step` is the mean number of tokens in a step, without padding.
    """
    if device.type == "cpu":
        speed_up_dropout(model)
    if needs_only_logits:
        compute_first_token_alone(plain_model(model))
    if device.type == "cpu" and not is_wrapped:
        use_row_gradients(model, optimizer, tokens_per_step=tokens_per_step)
