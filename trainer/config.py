"""What a recipe may say: frozen, strict models, one for each of its sections."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base of all sections: unknown keys are refused, no value is converted or changed later."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class TrainedTokenizer(Section):
    train: Literal["wordpiece", "bpe"]
    """Kind of tokenizer to train on the train split."""
    vocab_size: Annotated[int, Field(ge=64)] = 8000


def _tokenizer_kind(value: Any) -> str:
    return "trained" if isinstance(value, dict | TrainedTokenizer) else "path"


class Model(Section):
    name_or_path: str | None = None
    """Hub name, folder, or the model/ of an earlier run."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    architecture: dict[str, Any] | None = None
    """Numbers of a configuration, with its model_type, in place of name_or_path."""
    initialization: Literal["pretrained", "random"] = "pretrained"
    tokenizer: (
        Annotated[
            Annotated[str, Tag("path")] | Annotated[TrainedTokenizer, Tag("trained")],
            Discriminator(_tokenizer_kind),
        ]
        | None
    ) = None
    """null is the model's own; a hub name or folder; or one trained here."""
    gradient_checkpointing: bool = False

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.name_or_path is None) == (self.architecture is None):
            raise ValueError("give exactly one of name_or_path and architecture")
        if self.architecture is not None:
            if self.initialization != "random":
                raise ValueError("an architecture has no weights; set initialization: random")
            if "model_type" not in self.architecture:
                raise ValueError("architecture needs a model_type, such as bert or llama")
            if self.tokenizer is None:
                raise ValueError("an architecture has no tokenizer; set tokenizer")
        return self


class Tuning(Section):
    mode: Literal["full", "head_only", "lora", "qlora", "int8_lora"] = "full"
    r: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveInt = 32
    """Adapters are scaled by alpha / r."""
    dropout: Fraction = 0.05
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    bias: Literal["none", "all", "lora_only"] = "none"


class Classification(Section):
    name: Literal["classification"] = "classification"
    labels: Annotated[tuple[str, ...], Field(min_length=2)] | None = None
    """Names in the order of their indices; null takes what the train split holds."""
    class_weights: Literal["balanced"] | tuple[Annotated[float, Field(gt=0)], ...] | None = None
    """Weight of each class in the loss; balanced is rows / (classes * rows of the class)."""
    label_smoothing: Fraction = 0.0

    @model_validator(mode="after")
    def _one_weight_for_each_label(self) -> Self:
        if self.labels is not None and len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        if self.labels is not None and isinstance(self.class_weights, tuple):
            given, needed = len(self.class_weights), len(self.labels)
            if given != needed:
                raise ValueError(f"class_weights has {given} numbers for {needed} labels")
        return self


class Source(Section):
    hub: str | None = None
    """Name of a hub data set, or a folder that holds one."""
    config: str | None = None
    revision: str | None = None
    files: dict[str, str | tuple[str, ...]] | None = None
    """Split name to a file, a folder or several of them."""
    builtin: str | None = None
    """Name of a generator that comes with the package."""
    num_rows: PositiveInt = 6000
    """Train rows that a built-in generator makes."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of a built-in generator."""

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if [self.hub, self.files, self.builtin].count(None) != 2:
            raise ValueError("give exactly one of hub, files and builtin")
        if self.files is not None and "train" not in self.files:
            raise ValueError("files needs a train entry")
        if self.hub is None and (self.config or self.revision):
            raise ValueError("config and revision go with hub only")
        return self


class Columns(Section):
    text: str = "text"
    text_pair: str | None = None
    label: str = "label"


class Ratio(Section):
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the train rows that is taken out."""
    seed: Annotated[int, Field(ge=0)] = 1


def _split_kind(value: Any) -> str:
    return "ratio" if isinstance(value, dict | Ratio) else "name"


SplitOrigin = (
    Annotated[
        Annotated[str, Tag("name")] | Annotated[Ratio, Tag("ratio")], Discriminator(_split_kind)
    ]
    | None
)


class Split(Section):
    validation: SplitOrigin = "auto"
    """A split of the source, {ratio, seed} of its train split, or null for none.
    auto: the source's validation, otherwise a tenth of its train split."""
    test: SplitOrigin = "auto"
    """Likewise. auto: the source's test, otherwise none."""


class Data(Section):
    source: Source
    columns: Columns = Columns()
    split: Split = Split()
    max_rows: PositiveInt | None = None
    """The first rows of each split of the source; null takes all."""
    length_bucketing: bool = True
    """Put examples of like length into one batch."""


class Batch(Section):
    global_batch_size: PositiveInt = 32
    """Examples in one optimizer step, whatever the launch."""
    micro_batch_size: Literal["auto"] | PositiveInt = "auto"
    """Examples in one forward pass on one process; auto is the largest up to 16 that divides."""
    max_seq_length: Annotated[int, Field(ge=4)] = 128


class Optimizer(Section):
    name: Literal["adamw", "sgd", "adamw_8bit", "paged_adamw_8bit"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    """Not applied to biases and normalisation weights."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Annotated[float, Field(gt=0)] = 1e-8
    momentum: Fraction = 0.0
    """Of sgd."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Global norm at which gradients are clipped; null does not clip."""


class Schedule(Section):
    name: Literal["linear", "cosine", "constant"] = "linear"
    epochs: PositiveInt | None = None
    steps: PositiveInt | None = None
    warmup_ratio: Fraction | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None

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
    """An epoch, or a number of steps; the last step is always evaluated."""
    metric: str = "accuracy"
    """The validation metric that decides which step is best."""
    mode: Literal["max", "min"] = "max"
    patience: PositiveInt | None = None
    """Stop after so many evaluations without a better one."""


class Checkpoint(Section):
    every_steps: PositiveInt | None = None
    """null saves at evaluations that are best, when stopped and at the end."""
    keep_last: PositiveInt = 2
    keep_best: bool = True
    """Keep the best step's checkpoint; model/ then holds it, otherwise the last step."""


class Tracking(Section):
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim"], ...] = (
        "tensorboard",
    )
    log_every_steps: PositiveInt = 10


class Recipe(Section):
    """Everything that decides what is learned; the launch decides where."""

    seed: Annotated[int, Field(ge=0)] = 1
    model: Model
    tuning: Tuning = Tuning()
    task: Classification
    data: Data
    batch: Batch = Batch()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule(epochs=3)
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    deterministic: bool = False
    """Deterministic kernels only; needed for exact resumption on a GPU."""
    evaluation: Evaluation = Evaluation()
    checkpoint: Checkpoint = Checkpoint()
    tracking: Tracking = Tracking()
