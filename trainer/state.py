"""What a run has done so far: only numbers, so that resuming is arithmetic."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Self


@dataclass(frozen=True, kw_only=True)
class TrainState:
    """The position of a run; order, learning rate and generators are functions of it."""

    step: int = 0
    """Optimizer steps taken."""
    samples: int = 0
    """Examples consumed."""
    tokens: int = 0
    """Tokens consumed, without padding."""
    loss_sum: float = 0.0
    """Training losses of the steps since the last evaluation, added up."""
    loss_steps: int = 0
    """Number of those steps."""
    skipped_steps: int = 0
    """Optimizer steps that fp16 loss scaling left out."""
    evaluated_step: int = 0
    """The last step after which the validation split was evaluated."""
    best_step: int | None = None
    best_value: float | None = None
    """The deciding validation metric at best_step."""
    num_evaluations_since_best: int = 0

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
        """Returns the state after an evaluation whose deciding metric is `value`."""
        better = self.best_value is None or (
            value > self.best_value if mode == "max" else value < self.best_value
        )
        now = replace(self, evaluated_step=self.step)
        if not better:
            return replace(now, num_evaluations_since_best=self.num_evaluations_since_best + 1)
        return replace(now, best_step=self.step, best_value=value, num_evaluations_since_best=0)

    def with_loss_reset(self) -> Self:
        """Returns the state in which the mean training loss starts anew."""
        return replace(self, loss_sum=0.0, loss_steps=0)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
