"""The sections of a recipe about training: batch, optimizer, schedule, evaluation, saving, logs."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    Strict,
    model_validator,
)

from trainer.recipe.section import CountInt, Fraction, ListOf, PositiveInt, Section


class Batch(Section):
    global_batch_size: PositiveInt = 32
    """Examples in one optimizer step, over all processes. Packed sequences and the windows of
    question answering count as examples."""
    micro_batch_size: Literal["auto"] | PositiveInt = "auto"
    """Examples in one forward pass of one process; `auto` is the largest size up to 16 that
    divides."""
    max_seq_length: Annotated[int, Field(ge=4, le=10_000_000)] = 128
    """Tokens of the longest example; longer ones are truncated, cut into blocks or windows, as the
    task does it."""


class Optimizer(Section):
    name: Literal["adamw", "sgd", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """The 8-bit ones are those of bitsandbytes."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak learning rate, which the schedule scales."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Biases and normalisation weights are not decayed."""
    betas: Annotated[tuple[Fraction, Fraction], Strict(False)] = (0.9, 0.999)
    """Decay rates of Adam's first and second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Adam's epsilon."""
    momentum: Fraction = 0.0
    """Momentum of sgd."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Global norm to which gradients are clipped; null does not clip."""


class Schedule(Section):
    name: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warmup: linear and cosine end at zero."""
    epochs: PositiveInt | None = None
    """Passes over the train split. Give exactly one of epochs and steps."""
    steps: PositiveInt | None = None
    """Optimizer steps."""
    warmup_ratio: Fraction | None = None
    """Share of the steps in which the learning rate rises from zero. Give at most one of
    warmup_ratio and warmup_steps."""
    warmup_steps: CountInt | None = None
    """Number of those steps."""

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("give exactly one of epochs and steps")
        if self.warmup_ratio is not None and self.warmup_steps is not None:
            raise ValueError("give one of warmup_ratio and warmup_steps")
        return self


class Evaluation(Section):
    baseline: bool = True
    """Evaluate before the first step."""
    every: Literal["epoch"] | PositiveInt = "epoch"
    """`epoch`, or a number of steps; the last step is always evaluated."""
    metric: str = "loss"
    """The validation metric that decides which step is best. The default depends on the task:
    accuracy for classification, best_f1 for question answering, loss for others."""
    mode: Literal["max", "min"] = "min"
    """Whether the largest or the smallest value is the best. The default depends on the metric: min
    for losses, perplexities and errors, max for others."""
    patience: PositiveInt | None = None
    """Stop after this many evaluations without a new best; null never stops early."""


class Checkpoint(Section):
    every_steps: PositiveInt | None = None
    """Save every so many steps; null saves at new best evaluations, when stopped and at the end."""
    every_epoch: bool = False
    """Also save at the end of each epoch; these checkpoints are all kept."""
    keep_last: PositiveInt = 2
    """Number of full checkpoints to keep; older ones that are kept hold weights only."""
    keep_best: bool = True
    """Keep the checkpoint of the best step, which model/ then holds; otherwise it holds the last
    step."""
    in_background: Annotated[bool, Field(alias="async")] = False
    """Continue training while files are written, from a copy in memory of what each rank writes."""


class Tracking(Section):
    trackers: ListOf[Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim"]] = (
        "tensorboard",
    )
    """Where metrics go besides metrics.jsonl, which is always written."""
    log_every_steps: PositiveInt = 10
    """Steps from one line of metrics to the next."""
