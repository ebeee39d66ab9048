"""How far the logits of an export may be from those measured, in their standard deviations."""

from dataclasses import dataclass
from typing import Any

import torch

from trainer.models.load import QUANTISED
from trainer.run import Run

EXACT = 1e-5
"""The same weights in fp32, added up in the same order."""
MERGED = 1e-4
"""In fp32, adapters merged into a base weight: sums are rounded in another order."""
OTHER_DEVICE = 1e-3
"""In fp32, measured on a GPU and compared on a CPU."""
HALF = {torch.bfloat16: 0.25, torch.float16: 0.05}
"""Products of rounded numbers: 8 bits of a bf16 number count, 11 of an fp16 number."""
INT8 = 0.25
"""An int8 layer also rounds its inputs, to 1/127 of the largest of a token; the merged model does
not."""


@dataclass(frozen=True)
class Bounds:
    model: float
    adapter: float


def bounds_of(run: Run, dtype: torch.dtype | None = None) -> Bounds:
    """Returns the bounds for a run's model, exported as it is or in another type, and for its
    adapters."""
    model: Any = run.model
    types = {p.dtype for p in model.parameters() if p.is_floating_point()} | {_compute_type(run)}
    rounded = max((HALF.get(kind, 0.0) for kind in types), default=0.0)
    on_gpu = next(model.parameters()).device.type != "cpu"
    exact = OTHER_DEVICE if on_gpu else EXACT
    merges = hasattr(model, "peft_config")
    whole = max(exact, MERGED) if merges else exact
    if run.recipe.tuning.mode == "int8_lora":
        whole = INT8
        exact = INT8 if on_gpu else exact
    of_type = HALF.get(dtype, 0.0) if dtype is not None else 0.0
    return Bounds(model=max(whole, rounded, of_type), adapter=max(exact, rounded))


def computes_in_fp32(run: Run) -> bool:
    """Returns whether all weights are fp32: logits are then measured in fp32, on which two machines
    agree, whatever the precision of the run."""
    model: Any = run.model
    quantised = run.recipe.tuning.mode in QUANTISED
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return kinds == {torch.float32} and not (quantised and run.precision != "fp32")


def _compute_type(run: Run) -> torch.dtype:
    """Returns the type in which logits are measured."""
    halves = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.float32 if computes_in_fp32(run) else halves.get(run.precision, torch.float32)
