"""An outside package's task, in one file: how many tokens a text has, by regression.

`installed` makes it known as pip does: by an entry point in the metadata of a distribution.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
import torch
from support.task_cases import BERT, Case
from torch import Tensor, nn

from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.rows import numbered
from trainer.errors import ConfigError
from trainer.recipe.data import Columns
from trainer.recipe.schema import Miniature, Recipe, TaskSettings
from trainer.recipe.section import PositiveInt
from trainer.tasks.base import LossTerm, Task
from trainer.tasks.batch import Batch, attention_mask, pad
from trainer.tasks.finding import Finding
from trainer.tasks.reported import Record

if TYPE_CHECKING:
    from datasets import Dataset


def installed(site_packages: Path, *entries: str) -> None:
    """Writes the metadata of a distribution with the entry point of this task, or with others."""
    metadata = site_packages / "toy_tasks-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: toy-tasks\nVersion: 1.0\n")
    lines = ["[trainer.tasks]", *(entries or ("length = support.toy_task:Length",))]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n")


class LengthColumns(Columns):
    counted: str = "text"
    """The text whose tokens are counted."""


class LengthSettings(TaskSettings):
    """The length of a text."""

    roles: ClassVar[tuple[str, ...]] = ("text", "counted")
    columns: ClassVar[type[Columns]] = LengthColumns
    deciding_metric: ClassVar[str] = "mean_error"
    errors: ClassVar[tuple[str, ...]] = ("mean_error",)

    unit: PositiveInt = 100
    """Tokens of a length of 1."""

    def contradictions(self, recipe: Recipe) -> list[ConfigError]:
        longest = recipe.batch.max_seq_length
        if self.unit <= 10 * longest:
            return []
        return [
            ConfigError(
                f"task.unit: {self.unit} is more than ten times batch.max_seq_length={longest}",
                key="task.unit",
                value=self.unit,
                hint="use 100",
            )
        ]

    def miniature(self, columns: Columns) -> Miniature:
        return Miniature({"name": self.name, "unit": 10}, "reviews", {"counted": "label"})


class Length(Task):
    """Squared error of the length of a text, in units of tokens."""

    Settings = LengthSettings

    auto_model = "AutoModelForSequenceClassification"
    loss_terms = (LossTerm("squared_error"),)
    num_statistics = 2
    metrics_offered = ("loss", "mean_error")
    scales: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, recipe: Recipe, tokenizer: Any) -> None:
        settings, columns = recipe.task, recipe.data.columns
        assert isinstance(settings, LengthSettings)
        assert isinstance(columns, LengthColumns)
        self.unit = settings.unit
        self.counted = columns.counted
        self.tokenizer = tokenizer
        self.max_seq_length = recipe.batch.max_seq_length

    @classmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        yield from rows["text"]

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        return cls(recipe, tokenizer)

    def config_values(self) -> dict[str, Any]:
        return {"num_labels": 1, "problem_type": "regression"}

    def encoding_settings(self) -> dict[str, Any]:
        return {"task": "length", "length": self.max_seq_length}

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        for _, chunk in numbered(rows, ["text", self.counted]):
            read = self.tokenizer(chunk["text"], truncation=True, max_length=self.max_seq_length)
            counted = self.tokenizer(chunk[self.counted])
            lengths = [len(ids) for ids in counted["input_ids"]]
            yield {"input_ids": read["input_ids"], "target": lengths}

    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        inputs = {"input_ids": pad(split.ragged("input_ids"), ids, self.tokenizer.pad_token_id)}
        targets = split.array("target")[ids] / self.unit
        return Batch(
            inputs={**inputs, **attention_mask(split.lengths[ids])},
            targets={"labels": torch.from_numpy(targets).float()},
            counts=torch.tensor([len(ids)], dtype=torch.float64),
        )

    @classmethod
    def diagnose(cls, metrics: Mapping[str, Any]) -> list[Finding]:
        error = metrics.get("mean_error", 0.0)
        if error <= 1:
            return []
        message = f"mean_error {error:.2f} is more than one unit"
        return [Finding(code="far-off", message=message, figures={"mean_error": error})]

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
