"""What a task gives the loop: loss sums and target counts, and what to measure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from trainer.data.columns import ROW
from trainer.data.encoded import Columns, PreparedSplit, Ragged, Summary
from trainer.recipe.schema import Column, Recipe

if TYPE_CHECKING:
    from datasets import Dataset


Record = dict[str, Any]


@dataclass(frozen=True)
class LossTerm:
    name: str
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch of one process."""

    inputs: dict[str, Tensor]
    """Arguments of the model, [batch, seq]; no attention_mask where nothing is padded."""
    targets: dict[str, Tensor]
    counts: Tensor
    """What each loss sum is divided by once all of a step are added up, float64 [num_terms]."""

    def to(self, device: torch.device) -> Self:
        def move(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()}

        return replace(
            self,
            inputs=move(self.inputs),
            targets=move(self.targets),
            counts=self.counts.to(device, non_blocking=True),
        )

    def as_dummy(self) -> Self:
        """Returns a batch that takes part in the forward pass and counts nothing."""
        return replace(self, counts=torch.zeros_like(self.counts))


class ZeroShot(Protocol):
    """How the pretrained causal language model is asked in prompts, before anything is learned."""

    def sample(self, split: PreparedSplit) -> np.ndarray:
        """Returns the ids of what is asked of a split."""
        ...

    def answer(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        """Returns a record, with its `id`, of what the model answers to each of some ids."""
        ...

    def metrics(self, records: list[Record]) -> dict[str, Any]:
        """Returns the metrics of all that was asked, by the names of the task's own."""
        ...


class Task(Protocol):
    """A way to turn rows into loss and metrics; it knows nothing of ranks or engines."""

    auto_model: str
    """Name of the transformers class that builds its models."""
    loss_terms: tuple[LossTerm, ...]
    num_statistics: int
    metrics_offered: tuple[str, ...]
    """Names of numbers in `metrics` that can decide which step is best."""
    scales: dict[str, str]
    """Range of each metric that has one."""
    trains_head: bool = True
    """Whether what the model has beyond its backbone belongs to the task, and always learns."""
    reads_logits_alone: bool = False
    """Whether the task asks nothing else of the model, so that no other hidden state is needed."""
    reads_records: bool = False
    """Whether `metrics` needs the records of all examples."""
    fits_on_validation: bool = False
    """Whether `metrics` finds a threshold on the validation split, for use on the others."""
    target: str | None = None
    """Key, of those of `columns`, of the column with what is to be answered; None where there is
    no such column. Rows of a test split may lack it, or have nothing in it."""
    reads_if_there: tuple[str, ...] = ()
    """Columns that `encode` reads beside those of `columns`, where rows have them."""
    zero_shot: ZeroShot | None = None
    """How the pretrained model is asked; None where it is not to be, or nothing is pretrained."""

    @classmethod
    def columns(cls, recipe: Recipe) -> dict[str, Column | None]:
        """Returns the columns that it reads, by the dotted key under which a recipe names them."""
        ...

    @classmethod
    def columns_in(cls, recipe: Recipe, present: Sequence[str]) -> dict[str, Column | None]:
        """Returns the columns that it reads of rows with these; some are not needed."""
        return cls.columns(recipe)

    @classmethod
    def pair(cls, recipe: Recipe) -> str | None:
        """Returns which two texts it gives the tokenizer as a pair; None if it reads no pairs."""
        return None

    @classmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        """Returns the texts of the train rows that a tokenizer can be trained on."""
        ...

    @classmethod
    def shape(cls, recipe: Recipe, model_config: Any) -> str:
        """Returns the transformers class of its models, and writes into `model_config` what the
        recipe says of their head, without any data.

        Raises ConfigError where a recipe leaves the head to the data.
        """
        return cls.auto_model

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        """Returns the task of a recipe, with what the train rows and the model decide.

        Raises ConfigError and DataError for what cannot go together.
        """
        ...

    def config_values(self) -> dict[str, Any]:
        """Returns what the model's configuration must hold, such as num_labels."""
        return {}

    def encoding_settings(self) -> dict[str, Any]:
        """Returns what changes the encoded rows, beside the rows and the tokenizer."""
        ...

    def without_targets(self, rows: "Dataset", *, named: bool) -> str | None:
        """Returns, as a clause, what rows have in place of targets, None where a row has one.

        Of a split that the recipe has `named`, what may be meant is taken as it is, such as
        questions none of which has an answer.
        """
        return None

    def lacks_metric(self, metric: str, rows: "Dataset") -> str | None:
        """Returns, as a clause, why a metric cannot be measured on some rows; None where it can."""
        return None

    def notes(self, split: str, prepared: PreparedSplit) -> list[str]:
        """Returns what a reader of the results should know of the targets of a split."""
        return []

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[Columns]:
        """Returns columns with an entry for each example, `input_ids` among them, in parts.

        Bad rows go to `summary.reject`, with a sentence that names the row.
        """
        ...

    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        """Returns the examples `ids` of a prepared split as one padded batch.

        What is random in it depends on seed, epoch and id only; evaluations are epoch 0.
        """
        ...

    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        """Returns the sum of each loss term, fp32 [num_terms], and what `statistics` reads.

        The second is needed in evaluation only.
        """
        ...

    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        """Returns float64 [num_statistics] that add up over batches and ranks to `metrics`."""
        ...

    def records(
        self, outputs: Any, targets: dict[str, Tensor], split: PreparedSplit, ids: np.ndarray
    ) -> list[Record]:
        """Returns short records of the examples of a batch, each with its `id`."""
        return []

    def sample(self, split: PreparedSplit) -> np.ndarray:
        """Returns the ids of the examples that the model is to answer by generating text."""
        return np.empty(0, np.int64)

    def generate(self, model: nn.Module, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        """Returns a record with the generated text for each of some ids of `sample`."""
        return []

    def generation_ends(self, model: nn.Module) -> list[int]:
        """Returns the tokens at which generated text ends; none where a task says nothing of it."""
        return []

    def answers(self, records: list[Record], split: PreparedSplit) -> list[Record]:
        """Returns what is kept of the records of all ranks: one for each question asked."""
        return sorted(records, key=lambda record: record["id"])

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the metrics of a whole split from the sum of its statistics and its answers.

        `validation` holds the metrics of the validation split at the same weights where those are
        known, for thresholds that are found there.
        """
        ...


class Objective(nn.Module):
    """A model with its task's loss inside forward, so that an engine sees every weight it reads."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model = model
        self.task = task

    @property
    def config(self) -> Any:
        """Returns the model's configuration, from which engines read its width."""
        model: Any = self.model
        return model.config

    def forward(self, inputs: dict[str, Tensor], targets: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """Returns the sum of each loss term, fp32 [num_terms], and what `statistics` reads."""
        return self.task.loss_sums(self.model, inputs, targets)


def pad(column: Ragged, ids: np.ndarray, value: int) -> Tensor:
    """Returns entries `ids` of a column as int64 [batch, seq], filled up with `value`."""
    starts = column.offsets[ids]
    lengths = column.offsets[ids + 1] - starts
    positions = np.arange(lengths.max())
    inside = positions < lengths[:, None]
    padded = column.values[np.where(inside, starts[:, None] + positions, starts[:, None])]
    return torch.from_numpy(np.where(inside, padded, value).astype(np.int64))


def stack(entries: Sequence[np.ndarray], value: int) -> Tensor:
    """Returns sequences of different lengths as int64 [batch, seq], filled up with `value`."""
    width = max(len(entry) for entry in entries)
    stacked = np.full((len(entries), width), value, np.int64)
    for row, entry in enumerate(entries):
        stacked[row, : len(entry)] = entry
    return torch.from_numpy(stacked)


def attention_mask(lengths: np.ndarray) -> dict[str, Tensor]:
    """Returns the mask of a padded batch as a model's argument; none where nothing is padded."""
    if lengths.min() == lengths.max():
        return {}
    positions = torch.arange(int(lengths.max()))
    return {"attention_mask": (positions < torch.from_numpy(lengths)[:, None]).long()}


def texts_of(rows: "Dataset", column: str, summary: Summary) -> Iterator[list[tuple[int, str]]]:
    """Returns the texts of a column with the number of their row, some at a time.

    A row without text is rejected.
    """
    for numbers, chunk in numbered(rows, [column]):
        found: list[tuple[int, str]] = []
        for number, text in zip(numbers, chunk[column], strict=True):
            if isinstance(text, str) and text.strip():
                found.append((number, text))
            else:
                summary.reject(
                    f"row {number}: the column {column} has no text; mend or remove the row, or "
                    f"set data.documents where it separates documents"
                )
        yield found


def numbered(rows: "Dataset", columns: Sequence[str]) -> Iterator[tuple[list[int], Columns]]:
    """Returns the rows some at a time: their numbers in the source, and columns of values."""
    number = [ROW] if ROW in rows.column_names else []
    names = list(dict.fromkeys([*columns, *number]))
    first = 1
    for chunk in rows.select_columns(names).iter(batch_size=1000):
        values = cast(dict[str, list[Any]], chunk)
        size = len(values[names[0]])
        yield values.get(ROW) or list(range(first, first + size)), values
        first += size
