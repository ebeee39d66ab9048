"""The sections batch, optimizer, schedule, evaluation, checkpoint and tracking of a recipe."""

from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    Strict,
    model_validator,
)

from trainer.recipe.section import CountInt, Fraction, ListOf, PositiveInt, Section


class Batch(Section):
    global_batch_size: PositiveInt = 32
    """Number of examples in one optimizer step, over all processes. Packed sequences and the
    windows of question answering count as examples."""
    micro_batch_size: Literal["auto"] | PositiveInt = "auto"
    """Number of examples in one forward pass of one process, which divides its share of the global
    batch; `auto` is the largest that fits into the GPU by the plan, and on a CPU the largest up to
    16."""
    max_seq_length: Annotated[int, Field(ge=4, le=10_000_000)] = 128
    """Maximum length of an example in tokens; the task truncates longer ones, or cuts them into
    blocks or windows."""


class Optimizer(Section):
    name: Literal["adamw", "sgd", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    """The optimizer; the 8-bit ones come from bitsandbytes."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """Peak learning rate, which the schedule scales."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Weight decay; biases and normalisation weights are not decayed."""
    betas: Annotated[tuple[Fraction, Fraction], Strict(False)] = (0.9, 0.999)
    """Decay rates of Adam's first and second moment."""
    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Adam's epsilon."""
    momentum: Fraction = 0.0
    """Momentum of sgd."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Global norm to which gradients are clipped; null turns clipping off."""


class Schedule(Section):
    name: Literal["linear", "cosine", "constant"] = "linear"
    """Shape of the learning rate after the warmup: linear and cosine end at zero."""
    epochs: PositiveInt | None = None
    """Number of passes over the train split. Give exactly one of epochs and steps."""
    steps: PositiveInt | None = None
    """Number of optimizer steps."""
    warmup_ratio: Fraction | None = None
    """Share of the steps in which the learning rate rises from zero. Give at most one of
    warmup_ratio and warmup_steps."""
    warmup_steps: CountInt | None = None
    """Number of steps in which the learning rate rises from zero."""

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
    """Evaluate after each `epoch`, or each time after this number of steps; the last step is always
    evaluated."""
    metric: str = "loss"
    """The validation metric that decides which step is best. The default depends on the task:
    accuracy for classification, best_f1 for question answering, loss for others."""
    mode: Literal["max", "min"] = "min"
    """Whether the largest or the smallest value is the best. The default depends on the metric: min
    for losses, perplexities and errors, max for others."""
    patience: PositiveInt | None = None
    """Number of evaluations without a new best after which training stops; null never stops
    early."""


class Checkpoint(Section):
    every_steps: PositiveInt | None = None
    """Number of steps between checkpoints; null saves only at a new best evaluation, when the run
    is stopped, and at the end."""
    every_epoch: bool = False
    """Also save at the end of each epoch; these checkpoints are all kept."""
    keep_last: PositiveInt = 2
    """Number of full checkpoints to keep; older ones that are kept contain only weights."""
    keep_best: bool = True
    """Keep the checkpoint of the best step and export it as model/; otherwise model/ is the last
    step."""
    verify_export: bool = True
    """At the end, load the exported model in a fresh process with transformers and PEFT alone, and
    compare its logits with the measured ones. Left out if it does not fit into memory beside the
    run."""
    in_background: Annotated[bool, Field(alias="async")] = False
    """Continue training while files are written, from a copy in memory."""


class Tracking(Section):
    trackers: ListOf[Literal["tensorboard", "wandb", "mlflow", "trackio", "comet_ml", "aim"]] = (
        "tensorboard",
    )
    """Trackers that get the metrics; metrics.jsonl is always written. They write into the run
    directory and send nothing, unless environment variables of theirs say otherwise."""
    log_every_steps: PositiveInt = 10
    """Number of steps between two lines of training metrics."""
