"""What a recipe may say: frozen, strict models, one for each of its sections."""

import codecs
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticKnownError

from trainer.recipe.section import CountInt, Fraction, PositiveInt, Section, Seed
from trainer.recipe.task_settings import CausalLM as CausalLM
from trainer.recipe.task_settings import Classification as Classification
from trainer.recipe.task_settings import GeneratedAnswers as GeneratedAnswers
from trainer.recipe.task_settings import Generation as Generation
from trainer.recipe.task_settings import LabelWords as LabelWords
from trainer.recipe.task_settings import MaskedLM as MaskedLM
from trainer.recipe.task_settings import OtherTask as OtherTask
from trainer.recipe.task_settings import QuestionAnswering as QuestionAnswering
from trainer.recipe.task_settings import TaskSettings as TaskSettings


class TrainedTokenizer(Section):
    train: Literal["wordpiece", "bpe"]
    """Kind of tokenizer to train on the train split."""
    vocab_size: Annotated[int, Field(ge=64, le=1_000_000)] = 8000


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
    fresh_head: bool = False
    """Draw the head of a classification or question answering anew, whatever the model has, also
    for another number of labels; its backbone is kept."""
    head_labels: Literal["name", "position"] = "name"
    """How rows of a pretrained classification head are matched with the task's labels: by the names
    in the model's id2label, or as they stand."""
    pad_token: Literal["existing", "added"] = "existing"
    """Of tokenizers without one, or with the end token as one: `existing` takes a token that the
    model has, so that no row is added to it; `added` adds a token and its row."""
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
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
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
    """The character that encloses cells; null takes quotes for characters of the text. auto is " in
    .csv and null in .tsv."""
    encoding: str = "utf-8"
    """Of the text, such as latin-1 or utf-16."""
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
    revision: str | None = None
    files: dict[str, str | tuple[str, ...]] | None = None
    """Split name to a file, a folder or several of them."""
    csv: Csv | None = None
    """How .csv and .tsv files are read, where it is not as usual."""
    builtin: str | None = None
    """Name of a generator that comes with the package."""
    num_rows: Annotated[int, Field(gt=0, le=10_000_000)] = 6000
    """Train rows that a built-in generator makes."""
    seed: Seed = 1
    """Seed of a built-in generator."""

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
        if self.hub is not None and not self.hub.strip():
            raise ValueError("hub is empty; name a data set or a folder")
        for split, paths in (self.files or {}).items():
            several = [paths] if isinstance(paths, str) else paths
            if not several or not all(path.strip() for path in several):
                raise ValueError(f"files.{split[:40]} is empty; name a file or a folder")
        return self


def _column_kind(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Column = Annotated[
    Annotated[str, Tag("one")] | Annotated[tuple[str, ...], Field(min_length=1), Tag("several")],
    Discriminator(_column_kind),
]


class Columns(Section):
    """Names of columns; article.body is a field of a nested one."""

    text: Column = "text"
    """Or several columns: their texts, without the empty ones, one below the other."""
    text_pair: Column | None = None
    """Likewise."""
    label: str = "label"
    id: str = "id"
    question: str = "question"
    context: str = "context"
    answers: str = "answers"
    """Objects of text and answer_start, a list each, as in SQuAD on the hub; also one value each, a
    list of such objects, or JSON text."""
    messages: str = "messages"
    """Lists of objects of role and content, or of ShareGPT's from and value; or JSON text of one.
    Where rows have prompt and completion in place of it, those hold such lists, and the completion
    is learned."""
    tools: str | None = "tools"
    """Lists of tool definitions, or JSON text of one, that a chat template shows; read where there
    are some."""
    system: str | None = "system"
    """Texts that stand before the messages as those of the role system; read where there are
    some."""


class Ratio(Section):
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the train rows that is taken out."""
    seed: Seed = 1


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


Excluded = Annotated[tuple[str | int | float, ...], Field(min_length=1)]


class Data(Section):
    source: Source
    columns: Columns = Columns()
    split: Split = Split()
    exclude: dict[str, Excluded] = Field(default={})
    """Column to the values whose rows are left out, such as {label: [-1]}; 1, 1.0 and "1" are one
    value, and a class may be given by its name."""
    documents: Literal["rows", "blank_lines", "headings"] = "rows"
    """What begins a document: each row, an empty row, or a title such as WikiText's = Title =."""
    max_rows: PositiveInt | None = None
    """The first rows of each split of the source, after exclude; null takes all."""
    special_tokens: Literal["literal", "parsed"] = "literal"
    """How text that looks like a special token, such as </s> or [MASK], is read: as text, or as the
    token. Templates of a recipe and chat templates write special tokens either way."""
    on_bad_example: Literal["error", "skip"] = "error"
    """Stop at a row that cannot be learned from, such as an empty text, or leave it out and report
    how many there were."""
    length_bucketing: bool = True
    """Put examples of like length into one batch."""


class Batch(Section):
    global_batch_size: PositiveInt = 32
    """Examples in one optimizer step, whatever the launch."""
    micro_batch_size: Literal["auto"] | PositiveInt = "auto"
    """Examples in one forward pass on one process; auto is the largest up to 16 that divides."""
    max_seq_length: Annotated[int, Field(ge=4, le=10_000_000)] = 128


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
    warmup_steps: CountInt | None = None

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
    metric: str = "loss"
    """The validation metric that decides which step is best; where a recipe does not say, accuracy
    of a classification, best_f1 of question answering and the loss of others."""
    mode: Literal["max", "min"] = "min"
    """Where a recipe does not say, min for losses and perplexities, max for others."""
    patience: PositiveInt | None = None
    """Stop after so many evaluations without a better one."""


def smaller_is_better(metric: str) -> bool:
    """Returns whether the best value of a metric is its smallest."""
    return metric.startswith(("loss", "perplexity"))


class Checkpoint(Section):
    every_steps: PositiveInt | None = None
    """null saves at evaluations that are best, when stopped and at the end."""
    every_epoch: bool = False
    """Also at the end of each epoch; these are all kept."""
    keep_last: PositiveInt = 2
    """So many can be resumed; older ones that are kept hold weights only."""
    keep_best: bool = True
    """Keep the best step's checkpoint; model/ then holds it, otherwise the last step."""
    in_background: Annotated[bool, Field(alias="async")] = False
    """Train on while files are written, from a copy in memory of what each rank writes."""


class Tracking(Section):
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow", "comet_ml", "aim"], ...] = (
        "tensorboard",
    )
    log_every_steps: PositiveInt = 10


class Recipe(Section):
    """Everything that decides what is learned; the launch decides where."""

    seed: Seed = 1
    model: Model
    tuning: Tuning = FullTuning()
    task: TaskSettings
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

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        task, length, documents = self.task, self.batch.max_seq_length, self.data.documents
        causal = task if isinstance(task, CausalLM) else None
        wrong: list[str] = []
        if isinstance(task, QuestionAnswering) and task.stride != "auto" and task.stride >= length:
            wrong.append(
                f"task.stride: {task.stride} leaves nothing of batch.max_seq_length={length} for "
                f"new context; use auto, which is {min(128, length // 3)}"
            )
        if causal and causal.chat and isinstance(self.model.tokenizer, TrainedTokenizer):
            wrong.append(
                "task.chat: a tokenizer that is trained here has no chat template; set task.prompt "
                "and task.completion, or name a tokenizer"
            )
        reads_rows = isinstance(task, Classification | QuestionAnswering)
        if self.model.fresh_head and task.name in ("masked_lm", "causal_lm"):
            wrong.append(
                f"model.fresh_head: the head of {task.name} is the vocabulary of the model, which "
                f"is kept; leave it out"
            )
        if documents != "rows" and (reads_rows or (causal and causal.instructs)):
            wrong.append(
                f"data.documents: {documents} joins lines to running text, and {task.name} reads "
                f"each row by itself here; set it to rows"
            )
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self
