"""The state of a run: numbers only, so that resuming is arithmetic."""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Self

from trainer.wording import excerpt


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """How far a run has come; data order, learning rate and random seeds are functions of it."""

    step: int = 0
    """Optimizer steps taken."""
    samples: int = 0
    """Examples consumed."""
    tokens: int = 0
    """Tokens consumed, without padding."""
    loss_sum: float = 0.0
    """Sum of the training losses of the steps since the last evaluation."""
    loss_steps: int = 0
    """Number of those steps."""
    skipped_steps: int = 0
    """Optimizer steps that fp16 loss scaling left out."""
    evaluated_step: int = 0
    """The last step after which the validation split was evaluated; 0 if it never was."""
    best_step: int | None = None
    best_value: float | None = None
    """The deciding validation metric at best_step."""
    num_evaluations_since_best: int = 0

    @classmethod
    def of(cls, values: Any) -> Self:
        """Returns the state from the dict that `as_dict` returned.

        Raises ValueError if no run can have been in it.
        """
        names = [field.name for field in fields(cls)]
        if not isinstance(values, dict) or "step" not in values:
            raise ValueError("it has no state with a step")
        for name, value in values.items():
            if name not in names:
                raise ValueError(f"state.{excerpt(name, 40)} is unknown")
            if name in ("best_step", "best_value") and value is None:
                continue
            kinds = (int, float) if name in ("loss_sum", "best_value") else (int,)
            wrong = type(value) not in kinds
            wrong = wrong or (kinds == (int,) and not 0 <= value < 2**63)
            if wrong or (name == "loss_sum" and not math.isfinite(value)):
                raise ValueError(f"state.{name} is {excerpt(value, 40)}")
        state = cls(**values)
        for name in ("loss_steps", "skipped_steps", "evaluated_step", "best_step"):
            if (getattr(state, name) or 0) > state.step:
                raise ValueError(f"state.{name} is more than its step")
        if (state.best_step is None) != (state.best_value is None):
            raise ValueError("state has one of best_step and best_value")
        return state

    def after(self, *, samples: int, tokens: int, loss: float, skipped: bool) -> Self:
        """Returns the state after one more optimizer step."""
        return replace(
            self,
            step=self.step + 1,
            samples=self.samples + samples,
            tokens=self.tokens + tokens,
            loss_sum=self.loss_sum + loss,
            loss_steps=self.loss_steps + 1,
            skipped_steps=self.skipped_steps + skipped,
        )

    def evaluated(self, value: float, *, mode: str) -> Self:
        """Returns the state after an evaluation whose deciding metric is `value`.

        `mode` says whether the larger ("max") or the smaller ("min") value is better. NaN is never
        better than a number.
        """
        best = self.best_value
        if best is None or math.isnan(best):
            better = not math.isnan(value)
        else:
            better = value > best if mode == "max" else value < best
        state = replace(self, evaluated_step=self.step)
        if not better:
            return replace(state, num_evaluations_since_best=self.num_evaluations_since_best + 1)
        return replace(state, best_step=self.step, best_value=value, num_evaluations_since_best=0)

    def with_loss_reset(self) -> Self:
        """Returns the state in which the mean training loss starts again from the next step."""
        return replace(self, loss_sum=0.0, loss_steps=0)

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers by name, for a checkpoint's record."""
        return asdict(self)
