"""A task of a test's own, in one file: how many tokens a text has, by regression."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from task_cases import BERT, Case
from torch import Tensor, nn

from trainer.data.encoded import Columns, PreparedSplit, Summary
from trainer.data.rows import numbered
from trainer.recipe import schema
from trainer.tasks import TASKS
from trainer.tasks.base import LossTerm, Record, Task
from trainer.tasks.batch import Batch, attention_mask, pad

if TYPE_CHECKING:
    from datasets import Dataset


class Length(Task):
    """Squared error of the length of a text, in hundreds of tokens."""

    auto_model = "AutoModelForSequenceClassification"
    loss_terms = (LossTerm("squared_error"),)
    num_statistics = 2
    metrics_offered = ("loss", "mean_error")
    scales: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, tokenizer: Any, max_seq_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_seq_length = max_seq_length

    @classmethod
    def columns(cls, recipe: schema.Recipe) -> dict[str, schema.Column | None]:
        return {"data.columns.text": recipe.data.columns.text}

    @classmethod
    def texts(cls, recipe: schema.Recipe, rows: "Dataset") -> Iterator[str]:
        yield from rows["text"]

    @classmethod
    def build(
        cls, recipe: schema.Recipe, train: "Dataset", tokenizer: Any, model_config: Any
    ) -> Self:
        return cls(tokenizer, recipe.batch.max_seq_length)

    def config_values(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def encoding_settings(self) -> dict[str, Any]:
        return {"task": "length", "length": self.max_seq_length}

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[Columns]:
        for _, chunk in numbered(rows, ["text"]):
            ids = self.tokenizer(chunk["text"], truncation=True, max_length=self.max_seq_length)
            yield {"input_ids": ids["input_ids"]}

    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        inputs = {"input_ids": pad(split.ragged("input_ids"), ids, self.tokenizer.pad_token_id)}
        lengths = split.lengths[ids]
        return Batch(
            inputs={**inputs, **attention_mask(lengths)},
            targets={"labels": torch.from_numpy(lengths / 100).float()},
            counts=torch.tensor([len(ids)], dtype=torch.float64),
        )

    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Any]:
        found = model(**inputs).logits.float().squeeze(-1)
        return ((found - targets["labels"]) ** 2).sum()[None], found.detach()

    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        errors = (outputs - targets["labels"]).abs().double()
        return torch.stack([errors.sum(), torch.tensor(float(len(errors)), dtype=torch.float64)])

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return {"mean_error": float(statistics[0] / statistics[1])} if statistics[1] else {}


LENGTH = Case(
    task={"name": "length"},
    builtin="reviews",
    architecture=BERT,
    num_targets=lambda targets: [float(len(targets["labels"]))],
    own_loss=lambda model, inputs, targets: model(**inputs, labels=targets["labels"]).loss,
    perfect=lambda _, targets: targets["labels"],
    score=("mean_error", 0.0),
)

TASKS["length"] = Length
