"""What a recipe may say: frozen, strict models, one for each of its sections."""

import codecs
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, Self, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializeAsAny,
    Strict,
    Tag,
    ValidationError,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticKnownError

from trainer.errors import ConfigError
from trainer.recipe.keys import known_keys
from trainer.recipe.problems import joined, problems_of, rejection
from trainer.recipe.section import CountInt, Fraction, ListOf, PositiveInt, Section, Seed
from trainer.wording import excerpt


class TrainedTokenizer(Section):
    train: Literal["wordpiece", "bpe"]
    """Kind of tokenizer to train on the train split."""
    vocab_size: Annotated[int, Field(ge=64, le=1_000_000)] = 8000
    """Number of tokens, special ones included."""


def _tokenizer_kind(value: Any) -> str:
    return "trained" if isinstance(value, dict | TrainedTokenizer) else "path"


class Model(Section):
    name_or_path: str | None = None
    """Name of a hub model, a folder, or the model/ folder of an earlier run."""
    revision: str | None = None
    """Commit, tag or branch of a hub model."""
    architecture: dict[str, Any] | None = None
    """Values of a transformers configuration, model_type among them, in place of name_or_path."""
    initialization: Literal["pretrained", "random"] = "pretrained"
    """`random` takes only the shape of name_or_path and draws all weights."""
    tokenizer: (
        Annotated[
            Annotated[str, Tag("path")] | Annotated[TrainedTokenizer, Tag("trained")],
            Discriminator(_tokenizer_kind),
        ]
        | None
    ) = None
    """null is the model's own; otherwise a hub name, a folder, or {train, vocab_size} for one that
    is trained on the train split."""
    fresh_head: bool = False
    """Draw a new head for classification or question answering even if the model has one, also for
    another number of labels. The backbone is kept."""
    head_labels: Literal["name", "position"] = "name"
    """How the rows of a pretrained classification head are matched with the task's labels: by the
    names in the model's id2label, or by position."""
    pad_token: Literal["existing", "added"] = "existing"
    """For a tokenizer that has no padding token, or pads with its end token: `existing` uses a
    token that the model already has, so that no row is added to it; `added` adds a token and its
    row."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""

    @field_validator("name_or_path", "tokenizer")
    @classmethod
    def _folders_are_absolute(cls, value: Any, info: ValidationInfo) -> Any:
        key = f"model.{info.field_name}"
        return folder_or_name(key, value) if isinstance(value, str) else value

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


class AdapterTuning(Section):
    """LoRA (Hu et al. 2021): adapters beside linear layers learn, the model is frozen."""

    mode: Literal["lora", "qlora", "int8_lora"] = "lora"
    """Weights under the adapters: as they are, in 4 bits (NF4), or in 8 bits (LLM.int8)."""
    r: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveInt = 32
    """Adapters are scaled by alpha / r."""
    dropout: Fraction = 0.05
    """Of the input of the adapters."""
    target_modules: Literal["all-linear"] | ListOf[str] = "all-linear"
    """Linear layers with an adapter, by the last part of their name or in full; all-linear is all
    but the head."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Biases that learn: none, all of the model, or those of layers with an adapter."""


ADAPTER_MODES = get_args(AdapterTuning.model_fields["mode"].annotation)
TUNING_MODES = ("full", "head_only", *ADAPTER_MODES)


def without_adapter_keys(tuning: Any) -> Any:
    """Returns a tuning section, as read from YAML, without keys of adapters if its mode has none.

    Such keys may stay in a recipe whose mode is set to another, and stand in recipes of runs that
    are older than the distinction.
    """
    if not isinstance(tuning, dict) or tuning.get("mode", "full") in ADAPTER_MODES:
        return tuning
    adapters = AdapterTuning.model_fields.keys() - {"mode"}
    return {key: value for key, value in tuning.items() if key not in adapters}


def _known_mode(value: Any) -> Any:
    if value not in TUNING_MODES:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, TUNING_MODES))})
    return value


class FullTuning(Section):
    mode: Annotated[Literal["full"], BeforeValidator(_known_mode)] = "full"
    """All weights learn."""

    @model_validator(mode="before")
    @classmethod
    def _without_adapters(cls, values: Any) -> Any:
        return without_adapter_keys(values)


class HeadOnlyTuning(Section):
    mode: Literal["head_only"] = "head_only"
    """The head of the task learns, the backbone is frozen."""

    @model_validator(mode="before")
    @classmethod
    def _without_adapters(cls, values: Any) -> Any:
        return without_adapter_keys(values)


def _tuning_kind(value: Any) -> str:
    mode = value.get("mode", "full") if isinstance(value, dict) else getattr(value, "mode", None)
    if mode in ADAPTER_MODES:
        return "adapters"
    return "head_only" if mode == "head_only" else "full"  # which also refuses unknown modes


Tuning = Annotated[
    Annotated[FullTuning, Tag("full")]
    | Annotated[HeadOnlyTuning, Tag("head_only")]
    | Annotated[AdapterTuning, Tag("adapters")],
    Discriminator(_tuning_kind),
]


class Csv(Section):
    delimiter: str | None = None
    """The character between cells; null is a comma in .csv and a tab, "\\t", in .tsv."""
    quotechar: str | None = "auto"
    """The character that encloses cells; null reads quotes as part of the text. `auto` is " in .csv
    and null in .tsv."""
    encoding: str = "utf-8"
    """Encoding of the text, such as latin-1 or utf-16."""
    header: bool = True
    """Whether the first line names the columns; otherwise they are called "0", "1" and so on."""

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        for name, value in (("delimiter", self.delimiter), ("quotechar", self.quotechar)):
            if value not in (None, "auto") and (len(value) != 1 or value in "\r\n\0"):
                raise ValueError(
                    f'{name} {value[:20]!r} is not one character; a tab is "\\t" in double quotes'
                )
        if self.delimiter is not None and self.delimiter == self.quotechar:
            raise ValueError("delimiter and quotechar are the same")
        try:
            known = codecs.lookup(self.encoding)
        except (LookupError, ValueError):  # ValueError: a NUL in the name
            known = None
        if known is None or not getattr(known, "_is_text_encoding", True):
            raise ValueError(f"encoding {self.encoding[:40]!r} is unknown; use utf-8 or latin-1")
        return self


class Source(Section):
    hub: str | None = None
    """Name of a hub data set, or a folder that holds one."""
    config: str | None = None
    """Name of a configuration (subset) of the hub data set."""
    revision: str | None = None
    """Commit, tag or branch of the hub data set."""
    files: dict[str, str | ListOf[str]] | None = None
    """Split name to a file, a folder or a list of them."""
    csv: Csv | None = None
    """How to read .csv and .tsv files that differ from the usual format."""
    builtin: str | None = None
    """Name of a generator that comes with the package."""
    num_rows: Annotated[int, Field(gt=0, le=10_000_000)] = 6000
    """Number of train rows that a built-in generator draws."""
    seed: Seed = 1
    """Seed of a built-in generator."""

    @field_validator("hub")
    @classmethod
    def _a_folder_is_absolute(cls, hub: str | None) -> str | None:
        return hub if hub is None else folder_or_name("data.source.hub", hub)

    @field_validator("files")
    @classmethod
    def _files_are_absolute(
        cls, files: dict[str, str | tuple[str, ...]] | None
    ) -> dict[str, str | tuple[str, ...]] | None:
        def absolute(split: str, path: str) -> str:
            return str(existing_name(f"data.source.files.{split}", path).absolute())

        if files is None:
            return None
        return {
            split: absolute(split, paths)
            if isinstance(paths, str)
            else tuple(absolute(split, path) for path in paths)
            for split, paths in files.items()
        }

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if [self.hub, self.files, self.builtin].count(None) != 2:
            raise ValueError("give exactly one of hub, files and builtin")
        if self.files is not None and "train" not in self.files:
            raise ValueError("files needs a train entry")
        if self.hub is None and (self.config or self.revision):
            raise ValueError("config and revision go with hub only")
        if self.files is None and self.csv is not None:
            raise ValueError("csv goes with files only")
        for split, paths in (self.files or {}).items():
            if not paths:
                raise ValueError(f"files.{split[:40]} is empty; name a file or a folder")
        return self


def existing_name(key: str, text: str) -> Path:
    """Returns the path with ~ expanded; raises ValueError if no file can have this name."""
    problem, hint = None, None
    try:
        path = Path(text).expanduser()
        path.is_dir()
    except RuntimeError:
        problem = "there is no such home directory"
    except OSError as error:
        problem, hint = error.strerror, "shorten it"
    else:
        if text.strip():
            return path
        problem = "give a name, a file or a folder"
    raise rejection(
        ConfigError(f"{key}: {excerpt(repr(text))}: {problem}", key=key, value=text, hint=hint)
    )


def folder_or_name(key: str, text: str) -> str:
    """Returns the absolute path of an existing folder, so that a run can be resumed from another
    directory; returns any other text, such as a hub name, as it is."""
    path = existing_name(key, text)
    return str(path.absolute()) if path.is_dir() else text


def _column_kind(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Column = Annotated[
    Annotated[str, Tag("one")] | Annotated[ListOf[str], Field(min_length=1), Tag("several")],
    Discriminator(_column_kind),
]


class Columns(Section):
    """Which column has which role. `article.body` names the field body of the column article.

    A task from another package may subclass this with roles of its own.
    """

    text: Column = "text"
    """The text. Of several columns the texts, without empty ones, are joined by line breaks."""
    text_pair: Column | None = None
    """The second text of a pair; several columns are joined in the same way."""
    label: str = "label"
    """The class of a row."""
    id: str = "id"
    """Identifies a question."""
    question: str = "question"
    """The question about the context."""
    context: str = "context"
    """The text that holds the answer."""
    answers: str = "answers"
    """The answers: objects of the lists text and answer_start, as in SQuAD on the hub; of one text
    and one answer_start; a list of such objects; or any of these as JSON text."""
    messages: str = "messages"
    """Conversations: lists of objects of role and content, or of ShareGPT's from and value; or one
    as JSON text. Rows without this column may have the columns prompt and completion, which then
    hold such lists; the completion is learned."""
    tools: str | None = "tools"
    """Lists of tool definitions, or one as JSON text, for the chat template. Optional: read if the
    column exists."""
    system: str | None = "system"
    """System prompts, put before the messages with the role system. Optional: read if the column
    exists."""


class Ratio(Section):
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the train rows that is moved to this split."""
    seed: Seed = 1
    """Seed of the draw."""


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
    """Name of a split of the source, {ratio, seed} for a part of its train split, or null for none.
    `auto` is the source's validation split if it has one, otherwise a tenth of its train split."""
    test: SplitOrigin = "auto"
    """As for validation. `auto` is the source's test split if it has one, otherwise none."""


Excluded = Annotated[ListOf[str | int | float], Field(min_length=1)]


class Data(Section):
    source: Source
    """Where the rows come from: exactly one of hub, files and builtin."""
    columns: SerializeAsAny[Columns] = Columns()
    """Which columns the task reads."""
    split: Split = Split()
    """Where the validation and the test split come from."""
    exclude: dict[str, Excluded] = Field(default={})
    """Column to the values whose rows are left out, such as {label: [-1]}. 1, 1.0 and "1" are the
    same value, and a class may be given by its name."""
    documents: Literal["rows", "blank_lines", "headings"] = "rows"
    """What starts a document: each row, an empty row, or a title such as WikiText's = Title =."""
    max_rows: PositiveInt | None = None
    """Keep only the first rows of each split of the source, counted after exclude; null keeps
    all."""
    special_tokens: Literal["literal", "parsed"] = "literal"
    """How to read text that looks like a special token, such as </s> or [MASK]: as text, or as the
    token. Templates in the recipe and chat templates always write special tokens."""
    on_bad_example: Literal["error", "skip"] = "error"
    """Stop at a row that nothing can be learned from, such as an empty text, or skip it and report
    how many were skipped."""
    length_bucketing: bool = True
    """Put examples of similar length into one batch, which saves padding."""


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


class Miniature(NamedTuple):
    """What a task is trained on in a recipe's miniature."""

    settings: dict[str, Any]
    """The section `task`."""
    builtin: str
    """Name of a built-in data set."""
    columns: dict[str, Any]
    """Its section `data.columns`."""


class TaskSettings(Section):
    """Base of the section `task`: the settings of a task, and what a recipe has to know of it.

    Everything here is light, so that a recipe can be read without loading torch; the task itself,
    with data and loss, is a class of its own (trainer.tasks.base.Task).
    """

    roles: ClassVar[tuple[str, ...]] = ("text",)
    """Keys of data.columns that the task reads."""
    columns: ClassVar[type[Columns]] = Columns
    """The section data.columns: a subclass if the task has roles that Columns does not."""
    deciding_metric: ClassVar[str] = "loss"
    """Default of evaluation.metric."""
    errors: ClassVar[tuple[str, ...]] = ()
    """Metrics, besides losses and perplexities, whose smallest value is the best."""

    name: str
    """Name of the task."""

    def best_is_smallest(self, metric: str) -> bool:
        """Returns whether the best value of a metric is its smallest one."""
        return metric.startswith(("loss", "perplexity")) or metric in self.errors

    def contradictions(self, recipe: "Recipe") -> list[ConfigError]:
        """Returns what other sections of the recipe say that these settings rule out."""
        return []

    def miniature(self, columns: Columns) -> Miniature | None:
        """Returns small settings and built-in rows for `--smoke`, of the form that `columns` has.

        None if the task has no built-in rows.
        """
        return None


class Recipe(Section, ABC):
    """Everything that decides what is learned; the launch decides where.

    This room does not know the tasks: a subclass looks their settings up by name. Recipes are equal
    if all values are. Raises ConfigError with all `problems`, a sentence each.
    """

    seed: Seed = 1
    """Seed of weights, order, dropout and masks."""
    model: Model
    """Which model is trained, and from which weights."""
    tuning: Tuning = FullTuning()
    """Which weights are trained."""
    task: SerializeAsAny[TaskSettings]
    """What is learned; each task has settings of its own."""
    data: Data
    """Rows, splits and columns."""
    batch: Batch = Batch()
    """Sizes of batches and examples."""
    optimizer: Optimizer = Optimizer()
    """The optimizer."""
    schedule: Schedule = Schedule(epochs=3)
    """Length of the run and its learning rates."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """`auto` is bf16 on a GPU of compute capability 8.0 or above, fp16 on an older one, fp32 on a
    CPU."""
    deterministic: bool = False
    """Use deterministic kernels only, which exact resumption on a GPU needs."""
    evaluation: Evaluation = Field(default=Evaluation(), validate_default=True)
    """When to evaluate, and which step is the best."""
    checkpoint: Checkpoint = Checkpoint()
    """When to save, and what to keep."""
    tracking: Tracking = Tracking()
    """Where metrics are logged."""

    def __init__(self, /, **sections: Any) -> None:
        try:
            super().__init__(**sections)
        except ValidationError as error:
            known = self._known_keys(sections.get("task"))
            raise joined("", problems_of(error, sections, known)) from error

    @classmethod
    @abstractmethod
    def settings_of(cls, task: str) -> type[TaskSettings]:
        """Returns the class of a task's settings; raises ConfigError if there is no such task."""

    @classmethod
    def _known_keys(cls, task: Any) -> list[str]:
        """Returns the dotted keys of a recipe with the section `task`, right or not."""
        settings = type(task) if isinstance(task, TaskSettings) else TaskSettings
        name = task.get("name") if isinstance(task, dict) else None
        if isinstance(name, str):
            try:
                settings = cls.settings_of(name)
            except ConfigError:
                settings = TaskSettings
        keys = [*known_keys(cls), *known_keys(settings, "task.")]
        return list(dict.fromkeys([*keys, *known_keys(settings.columns, "data.columns.")]))

    @field_validator("task", mode="before")
    @classmethod
    def _settings_of_the_task(cls, task: Any) -> Any:
        if not isinstance(task, dict):
            return task
        name: Any = task.get("name")
        if not isinstance(name, str):  # reported without the other keys, which are the task's
            return {key: value for key, value in task.items() if key == "name"}
        try:
            settings = cls.settings_of(name)
        except ConfigError as error:
            raise rejection(error) from error
        return settings.model_validate(task)

    @field_validator("data", mode="before")
    @classmethod
    def _roles_of_the_task(cls, data: Any, info: ValidationInfo) -> Any:
        """Validates data.columns by the task's own roles, if it has some."""
        task = info.data.get("task")
        if not isinstance(data, dict) or not isinstance(task, TaskSettings):
            return data
        columns: Any = data.get("columns", {})
        if task.columns is Columns or not isinstance(columns, dict):
            return data
        under = create_model("Data", columns=(task.columns, ...))  # for the key of its errors
        return {**data, "columns": under.model_validate({"columns": columns}).columns}  # pyright: ignore

    @field_validator("evaluation")
    @classmethod
    def _decided_by_the_task(cls, evaluation: Evaluation, info: ValidationInfo) -> Evaluation:
        """Fills in the metric and the mode that the recipe does not give."""
        task = info.data.get("task")
        if not isinstance(task, TaskSettings):
            return evaluation
        given = evaluation.model_fields_set
        metric = evaluation.metric if "metric" in given else task.deciding_metric
        mode = "min" if task.best_is_smallest(metric) else "max"
        mode = evaluation.mode if "mode" in given else mode
        return evaluation.model_copy(update={"metric": metric, "mode": mode})

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        if contradictions := self.task.contradictions(self):
            raise rejection(*contradictions)
        return self
