"""How far the logits of an export may be from those measured, in their standard deviations."""

from dataclasses import dataclass
from typing import Any, Literal

import torch

from trainer.engines.precision import COMPUTE_DTYPES
from trainer.models.load import QUANTISED
from trainer.run import Run


@dataclass(frozen=True)
class Bound:
    """The largest difference of logits that is allowed."""

    limit: float
    statistic: Literal["largest", "root mean square"] = "largest"
    """Which difference counts. Where numbers are rounded to 8 or 11 bits, the largest of millions
    says nothing, for instance because another expert was chosen for one token."""


EXACT = Bound(1e-5)
"""The same weights in fp32, added up in the same order."""
MERGED = Bound(1e-4)
"""In fp32, adapters merged into a base weight: sums are rounded in another order."""
OTHER_DEVICE = Bound(1e-3)
"""In fp32, measured on a GPU and compared on a CPU."""
HALF = {
    torch.float16: Bound(0.02, "root mean square"),
    torch.bfloat16: Bound(0.1, "root mean square"),
}
"""Numbers are rounded to 11 bits in fp16 and to 8 bits in bf16."""
INT8 = Bound(0.25, "root mean square")
"""An int8 layer also rounds its inputs, to 1/127 of the largest of a token, unless that is an
outlier of its batch; a merged model does not."""


@dataclass(frozen=True)
class Bounds:
    model: Bound
    adapter: Bound


def bounds_of(run: Run, dtype: torch.dtype | None = None) -> Bounds:
    """Returns the bounds for a run's model, exported as it is or in another type, and for its
    adapters."""
    model: Any = run.model
    types = {p.dtype for p in model.parameters() if p.is_floating_point()}
    if not computes_in_fp32(run):
        types |= {COMPUTE_DTYPES[run.precision]}
    rounded = [bound for kind, bound in HALF.items() if kind in types]
    exact = EXACT if next(model.parameters()).device.type == "cpu" else OTHER_DEVICE
    quantised = [INT8] if run.recipe.tuning.mode == "int8_lora" else []
    converted = [HALF[dtype]] if dtype in HALF else []
    merged = [MERGED] if hasattr(model, "peft_config") else []
    return Bounds(
        model=_widest([exact, *merged, *rounded, *quantised, *converted]),
        adapter=_widest([exact, *rounded, *quantised]),
    )


def computes_in_fp32(run: Run) -> bool:
    """Returns whether all weights are fp32: logits are then measured in fp32, on which two machines
    agree, whatever the precision of the run."""
    model: Any = run.model
    quantised = run.recipe.tuning.mode in QUANTISED
    kinds = {p.dtype for p in model.parameters() if p.is_floating_point()}
    return kinds == {torch.float32} and not (quantised and run.precision != "fp32")


def _widest(bounds: list[Bound]) -> Bound:
    return max(bounds, key=lambda bound: (bound.statistic != "largest", bound.limit))
