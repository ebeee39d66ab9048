"""The operations of a training step and their share of the GPU's peak rate (MFU)."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from torch import nn

PEAK = {
    "H100 80GB HBM3": 989.4e12,  # SXM
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H200": 989.4e12,
    "A100": 312e12,
    "L4": 121e12,
    "A10": 125e12,
}
"""Dense bf16 operations a second by NVIDIA's data sheets, without sparsity."""
FORMULA = (
    "MFU = tokens/s x operations per token / peak. Operations per token = 4 F + 6 T + (4 or 6) s O"
    " + 12 L H A. F: frozen weights of linear layers (2 forward, 2 for their input's gradient);"
    " T: trained ones, including adapters (2 more for their own gradient); O: the output layer (4"
    " frozen, 6 trained), computed at the share s of positions that have a label; L: layers, H ="
    " heads x their size, A: tokens that a token attends to on average, which are itself and those"
    " before it in its own example. Recomputation, softmax, norms and the optimizer do not count."
    " Padding does not count as tokens."
)


def peak_of(gpu: str) -> float | None:
    """Returns the peak of a GPU by its name in CUDA, or None if it is not known."""
    return next((rate for name, rate in PEAK.items() if name in gpu), None)


def operations_per_token(
    model: Any, *, labelled_share: float, attended: float
) -> tuple[float, dict[str, float]]:
    """Returns the operations of a token in a training step, and the numbers in the formula."""
    output = model.get_output_embeddings()
    frozen = learned = 0
    for module in model.modules():
        if isinstance(module, nn.Linear) and module is not output:
            size = module.in_features * module.out_features
            if module.weight.requires_grad:
                learned += size
            else:
                frozen += size
    head = output.in_features * output.out_features
    of_head = 6 if output.weight.requires_grad else 4
    numbers = model.config
    width = numbers.num_attention_heads * numbers.head_dim
    attention = 12 * numbers.num_hidden_layers * width * attended
    total = 4 * frozen + 6 * learned + of_head * labelled_share * head + attention
    return total, {
        "F": frozen,
        "T": learned,
        "O": head,
        "s": labelled_share,
        "L": numbers.num_hidden_layers,
        "H": width,
        "A": attended,
    }


def mean_attended(position_ids: Iterable[np.ndarray]) -> float:
    """Returns how many tokens a token of packed sequences attends to, including itself."""
    return float(np.concatenate(list(position_ids)).astype(np.int64).mean() + 1)
