"""The interface of a task: it gives the loop loss sums and target counts, and measures metrics."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from torch import Tensor, nn

from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.recipe.data import Column
from trainer.recipe.schema import Recipe, TaskSettings
from trainer.tasks.batch import Batch
from trainer.tasks.reported import Record, Reported

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class LossTerm:
    """A part of the loss that has its own denominator."""

    name: str
    weight: float = 1.0


class ZeroShot(ABC):
    """Prompts for the pretrained causal language model, before anything is learned."""

    @abstractmethod
    def sample(self, split: PreparedSplit) -> np.ndarray:
        """Returns the ids, of examples or of questions, for which the model is prompted."""

    @abstractmethod
    def answer(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        """Returns a record of the model's answer for each id, with its `id`."""

    @abstractmethod
    def metrics(self, records: list[Record]) -> dict[str, Any]:
        """Returns the metrics of all answers, under the names of the task's own metrics."""


class Task(Reported, ABC):
    """Turns rows into loss and metrics; knows nothing of ranks or engines.

    A task is built once per run, from its settings, the train rows and the model's configuration.
    """

    Settings: ClassVar[type[TaskSettings]]
    """Class of the section `task` in its recipes."""

    auto_model: str
    """Name of the transformers class that builds its models."""
    loss_terms: tuple[LossTerm, ...]
    """The terms of the loss, in the order of `loss_sums` and `Batch.counts`."""
    num_statistics: int
    """Length of what `statistics` returns."""
    metrics_offered: tuple[str, ...]
    """Names of numbers in `metrics` that can decide which step is best."""
    scales: dict[str, str]
    """Range of each metric that has one, such as "0-1"."""
    trains_head: bool = True
    """Whether the layers on top of the backbone belong to the task; then every tuning mode trains
    them."""
    needs_only_logits: bool = False
    """Whether the loss reads only the logits; then a model may skip hidden states that they do not
    depend on."""
    reads_records: bool = False
    """Whether `metrics` needs the records of all examples."""
    tunes_threshold: bool = False
    """Whether `metrics` chooses a threshold on the validation split, for use on other splits."""
    optional_columns: tuple[str, ...] = ()
    """Columns that `encode` also reads if the rows have them."""
    predictor: ClassVar[str | None] = None
    """Module and name of the class that answers rows without targets, a subclass of
    trainer.tasks.predictor.Predictor; None if the task has none."""
    generated_tokens: int = 0
    """How many tokens `generate` adds to a prompt, at most; set for plans only."""
    zero_shot: ZeroShot | None = None
    """How the pretrained model is prompted; None if the recipe does not ask for it, or the weights
    are random."""

    @classmethod
    def columns(cls, recipe: Recipe) -> dict[str, Column | None]:
        """Returns the columns that it reads, by the dotted recipe key that names them."""
        columns = recipe.data.columns
        return {f"data.columns.{role}": getattr(columns, role) for role in cls.Settings.roles}

    @classmethod
    def columns_in(cls, recipe: Recipe, present: Sequence[str]) -> dict[str, Column | None]:
        """Returns the columns that it reads from rows with the columns `present`, without optional
        ones that are missing."""
        return cls.columns(recipe)

    @classmethod
    def pair(cls, recipe: Recipe) -> str | None:
        """Returns, in words, the two texts that it tokenizes as a pair; None if it does not read
        pairs."""
        return None

    @classmethod
    @abstractmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        """Yields the texts of the train rows that a tokenizer can be trained on."""

    @classmethod
    def model_class(cls, recipe: Recipe, model_config: Any) -> str:
        """Returns the name of the transformers class that builds its models; reads no data.

        Raises ConfigError if models of this configuration cannot learn the task.
        """
        return cls.auto_model

    @classmethod
    def head_config_values(cls, recipe: Recipe) -> dict[str, Any]:
        """Returns the values of the model's configuration that decide the size of its head, as far
        as the recipe alone says; reads no data.

        Raises ConfigError if they depend on the data.
        """
        return {}

    @classmethod
    @abstractmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        """Returns the task of a recipe, completed from the train rows and the model's
        configuration.

        Raises ConfigError or DataError if recipe, rows and model do not fit together.
        """

    @classmethod
    def unread(cls, recipe: Recipe, model_config: Any) -> Self | None:
        """Returns a task for plans, made without data and tokenizer; None if it has no plan.

        Only its attributes about model and loss are set, and only `config_values`, `loss_sums` and
        `full_batch` may be called. Raises ConfigError if models of this configuration cannot learn
        the task.
        """
        return None

    def full_batch(self, size: int, length: int) -> Batch:
        """Returns a batch of `size` examples of `length` tokens, with arbitrary tokens and as many
        targets as such a batch can have; only tasks with `unread` need it."""
        raise NotImplementedError

    def config_values(self) -> dict[str, Any]:
        """Returns the values that the model's configuration must have, such as num_labels."""
        return {}

    @abstractmethod
    def encoding_settings(self) -> dict[str, Any]:
        """Returns what the encoded rows depend on, besides the rows and the tokenizer: it is part
        of their name in the cache."""

    def why_without_targets(self, rows: "Dataset", *, named: bool) -> str | None:
        """Returns, as a clause, what all rows have in place of targets; None if any row has one.

        If the recipe has `named` the split, rows that can be meant so are accepted, such as
        questions that all have no answer.
        """
        return None

    def why_not_measurable(self, metric: str, rows: "Dataset") -> str | None:
        """Returns, as a clause, why a metric cannot be measured on the rows; None if it can."""
        return None

    def notes(self, split: str, prepared: PreparedSplit) -> list[str]:
        """Returns what a reader of the results should know about the targets of a split."""
        return []

    @abstractmethod
    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields chunks of columns with one entry per example, `input_ids` among them.

        Bad rows go to `summary.reject`, with a sentence that names the row.
        """

    @abstractmethod
    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        """Returns the examples `ids` of a prepared split as one padded batch.

        Anything random in it depends only on seed, epoch and id; evaluations are epoch 0.
        """

    @abstractmethod
    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        """Returns the sum of each loss term, fp32 [num_terms], and the outputs for `statistics`.

        The outputs are read in evaluation only.
        """

    @abstractmethod
    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        """Returns float64 [num_statistics]; `metrics` reads the sum over batches and ranks."""

    def records(
        self, outputs: Any, targets: dict[str, Tensor], split: PreparedSplit, ids: np.ndarray
    ) -> list[Record]:
        """Returns a short record of each example of a batch; none by default.

        `answers` reads them: as it is defined here, it sorts them by their `id`.
        """
        return []

    def sample(self, split: PreparedSplit) -> np.ndarray:
        """Returns the ids of the examples that the model answers by generating text."""
        return np.empty(0, np.int64)

    def generate(self, model: nn.Module, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        """Returns a record with the generated text for each id, which `sample` returned."""
        return []

    def generation_ends(self, model: nn.Module) -> list[int]:
        """Returns the ids of the tokens that end generated text; none if the task generates
        none."""
        return []

    def answers(self, records: list[Record], split: PreparedSplit) -> list[Record]:
        """Returns one record per question or example, in order, from those that `records` and
        `generate` returned on all ranks."""
        return sorted(records, key=lambda record: record["id"])

    @abstractmethod
    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the metrics of a whole split from its summed statistics and its answers.

        `validation` holds the metrics of the validation split at the same weights, if they are
        known; thresholds are taken from them.
        """


class Objective(nn.Module):
    """A model with its task's loss inside `forward`: an engine sees every weight the loss reads."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    @property
    def config(self) -> Any:
        """The model's configuration; engines read the hidden size from it."""
        model: Any = self.model
        return model.config

    def forward(self, inputs: dict[str, Tensor], targets: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Returns the sum of each loss term, fp32 [num_terms], and the outputs for `statistics`."""
        return self.task.loss_sums(self.model, inputs, targets)
