"""The interface of a predictor: it answers rows without targets by a trained model."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.rows import numbered
from trainer.errors import DataError
from trainer.recipe.data import Column
from trainer.recipe.schema import Recipe
from trainer.tasks.reported import Record

if TYPE_CHECKING:
    from datasets import Dataset


class Predictor(ABC):
    """Turns rows into answers; knows nothing of files, devices or other processes.

    It encodes rows as its task does, so its answers are those that an evaluation measures. It is
    built from a recipe, a tokenizer and a model's configuration, never from train rows.
    """

    columns: Mapping[str, Column]
    """The columns that it reads, by role, in the order in which plain texts fill them."""
    fields: tuple[str, ...]
    """The names of what an answer holds."""
    needs_only_logits: bool = False
    """As in the task: whether a model may skip hidden states that the logits do not depend on."""

    @classmethod
    @abstractmethod
    def build(
        cls, recipe: Recipe, tokenizer: Any, model_config: Any, validation: Mapping[str, Any]
    ) -> Self:
        """Returns the predictor of a recipe's task for a trained model.

        `validation` holds the metrics that the model has on the validation split, if they are
        known; thresholds are taken from them. Raises ConfigError if the model has no such answers.
        """

    def columns_in(self, present: Sequence[str]) -> Mapping[str, Column]:
        """Returns the columns that it reads, by role, from rows with the columns `present`."""
        return self.columns

    def key_of(self, role: str) -> str:
        """Returns the recipe key that names the column of a role."""
        return f"data.columns.{role}"

    def of_texts(self, texts: Sequence[str]) -> dict[str, Any]:
        """Returns the values by role of plain texts, as many as it reads."""
        return dict(zip(self.columns, texts, strict=True))

    @abstractmethod
    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields chunks of encoded examples, with `row`, the index of the row of each.

        A row that has no answer goes to `summary.reject`, with a sentence that names it.
        """

    @abstractmethod
    def records(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        """Returns what the model says of each of the examples `ids`, read as one batch."""

    @abstractmethod
    def answers(self, records: list[Record], split: PreparedSplit) -> dict[int, Record]:
        """Returns the answer to each row by its index, from the records of all its examples."""


def encode_rows(
    rows: "Dataset",
    names: Sequence[str],
    tokens_of: Callable[[dict[str, Any]], list[int]],
    summary: Summary,
) -> Iterator[EncodedColumns]:
    """Yields chunks with `input_ids`, what `tokens_of` returns for a row with the columns `names`,
    and `row`, its index.

    A row for which it raises DataError goes to `summary.reject`, with a sentence that names it.
    """
    first = 0
    for numbers, chunk in numbered(rows, names):
        columns: EncodedColumns = {"input_ids": [], "row": []}
        for index, number in enumerate(numbers):
            try:
                ids = tokens_of({name: chunk[name][index] for name in names})
            except DataError as error:
                summary.reject(error.after(f"row {number}: "))
                continue
            columns["input_ids"].append(ids)
            columns["row"].append(first + index)
        yield columns
        first += len(numbers)
