"""Classification of a text or a pair of texts into any number of labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer import config
from trainer.data.prepare import PreparedSplit
from trainer.data.sources import row_number
from trainer.errors import ConfigError, DataError
from trainer.metrics.classification import from_confusion
from trainer.tasks.base import Batch, LossTerm, pad

if TYPE_CHECKING:
    from datasets import Dataset


class Classification:
    """Cross-entropy over labels; its denominator is the sum of the class weights of the targets."""

    auto_model = "AutoModelForSequenceClassification"
    loss_terms = (LossTerm("cross_entropy"),)

    def __init__(
        self,
        *,
        labels: Sequence[str],
        columns: config.Columns,
        max_seq_length: int,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
    ) -> None:
        self.labels = tuple(labels)
        self.columns = columns
        self.max_seq_length = max_seq_length
        self.label_smoothing = label_smoothing
        self.class_weights = torch.tensor(class_weights or [1.0] * len(self.labels))
        self.num_statistics = len(self.labels) ** 2
        binary = ["precision", "recall", "f1"] if len(self.labels) == 2 else []
        shares: list[str] = ["accuracy", *binary, "precision_macro", "recall_macro", "f1_macro"]
        self.metrics_offered = (*shares, "loss")
        self.scales = dict.fromkeys(shares, "0-1")

    @classmethod
    def from_rows(
        cls, task: config.Classification, data: config.Data, max_seq_length: int, train: "Dataset"
    ) -> Self:
        """Returns the task with the labels, and balanced weights, that the train rows give."""
        column = data.columns.label
        labels = task.labels or label_names(train, column)
        if len(labels) < 2:
            raise DataError(
                f"the train split has one label only, {', '.join(labels)}; at least 2 differ"
            )
        weights = None if task.class_weights == "balanced" else task.class_weights
        if weights is not None and len(weights) != len(labels):
            raise ConfigError(
                f"task.class_weights has {len(weights)} numbers for the {len(labels)} labels "
                f"{', '.join(labels)}"
            )
        made = cls(
            labels=labels,
            columns=data.columns,
            max_seq_length=max_seq_length,
            class_weights=weights,
            label_smoothing=task.label_smoothing,
        )
        if task.class_weights == "balanced":
            counts = np.bincount(made.label_indices(train), minlength=len(labels))
            if not counts.all():
                absent = labels[int(np.argmin(counts))]
                raise ConfigError(f"task.class_weights: balanced, but no train row is {absent}")
            made.class_weights = torch.tensor(
                counts.sum() / (len(labels) * counts), dtype=torch.float32
            )
        return made

    @property
    def column_names(self) -> dict[str, str | None]:
        return {key: value for key, value in self.columns.model_dump().items() if value is not None}

    def config_values(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
        }

    def encoding_settings(self) -> dict[str, Any]:
        """Returns what changes the encoded rows, beside the rows and the tokenizer."""
        return {"task": "classification", "labels": self.labels, "length": self.max_seq_length}

    def encode(
        self, rows: "Dataset", tokenizer: Any
    ) -> tuple[dict[str, list[Any]], dict[str, Any]]:
        """Returns columns input_ids, label and, for pairs, token_type_ids; and truncated rows.

        Raises DataError for an empty text and for a label that is not one of the task's.
        """
        texts = _texts(rows, self.columns.text)
        pairs = _texts(rows, self.columns.text_pair) if self.columns.text_pair else None
        encoded = tokenizer(texts, pairs, truncation=False, return_attention_mask=False)
        lengths = [len(ids) for ids in encoded["input_ids"]]
        num_truncated = sum(length > self.max_seq_length for length in lengths)
        if num_truncated:
            encoded = tokenizer(
                texts,
                pairs,
                truncation=True,
                max_length=self.max_seq_length,
                return_attention_mask=False,
            )
        columns: dict[str, list[Any]] = {
            "input_ids": encoded["input_ids"],
            "label": self.label_indices(rows),
        }
        if "token_type_ids" in encoded:
            columns["token_type_ids"] = encoded["token_type_ids"]
        return columns, {"num_truncated": num_truncated, "longest": max(lengths)}

    def label_indices(self, rows: "Dataset") -> list[int]:
        """Returns the index of each row's label, given as a name or as an index.

        Numbers of a column with class names are indices. Raises DataError that names the row of a
        label that is neither.
        """
        column = self.columns.label
        values = list(rows[column])
        indices = {label: index for index, label in enumerate(self.labels)}
        named = getattr(rows.features[column], "names", None) is None
        if not (named and any(label_text(value) in indices for value in set(values))):
            indices = {str(index): index for index in range(len(self.labels))}
        found = [indices.get(label_text(value), -1) for value in values]
        if -1 in found:
            row = found.index(-1)
            raise DataError(
                f"row {row_number(rows, row)}: the label {values[row]!r} is none of "
                f"{', '.join(self.labels)}; set task.labels or mend the row"
            )
        return found

    def collate(self, split: PreparedSplit, ids: np.ndarray, pad_token_id: int) -> Batch:
        inputs = {"input_ids": pad(split.ragged("input_ids"), ids, pad_token_id)}
        lengths = split.lengths[ids]
        if lengths.min() < lengths.max():
            positions = torch.arange(int(lengths.max()))
            inputs["attention_mask"] = (positions < torch.from_numpy(lengths)[:, None]).long()
        if "token_type_ids" in split.columns:
            inputs["token_type_ids"] = pad(split.ragged("token_type_ids"), ids, 0)
        labels = torch.from_numpy(split.array("label")[ids])
        return Batch(
            inputs=inputs,
            targets={"labels": labels},
            counts=self.class_weights[labels].double().sum()[None],
        )

    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        logits = model(**inputs).logits.float()
        loss = functional.cross_entropy(
            logits,
            targets["labels"],
            weight=self.class_weights.to(logits.device),
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return loss[None], logits.detach()

    def statistics(self, outputs: Tensor, targets: dict[str, Tensor]) -> Tensor:
        pairs = targets["labels"] * len(self.labels) + outputs.argmax(-1)
        return torch.bincount(pairs, minlength=self.num_statistics).double()

    def metrics(self, statistics: np.ndarray) -> dict[str, Any]:
        size = len(self.labels)
        return from_confusion(statistics.reshape(size, size).astype(np.int64), self.labels)

    def predictions(self, outputs: Tensor, targets: dict[str, Tensor]) -> list[dict[str, Any]]:
        probabilities, predicted = outputs.softmax(-1).max(-1)
        return [
            {
                "label": self.labels[label],
                "prediction": self.labels[prediction],
                "probability": probability,
            }
            for label, prediction, probability in zip(
                targets["labels"].tolist(), predicted.tolist(), probabilities.tolist(), strict=True
            )
        ]


def label_names(rows: "Dataset", column: str) -> tuple[str, ...]:
    """Returns the labels of a column: its class names, or its values, numbers by size."""
    feature = rows.features[column]
    if getattr(feature, "names", None):
        return tuple(feature.names)
    values = list(rows[column])
    for row, value in enumerate(values):
        if value is None or value != value or not str(value).strip():  # NaN differs from itself
            raise DataError(
                f"the train split, row {row_number(rows, row)}: the column {column} has no label; "
                f"mend or remove the row"
            )
    names = {label_text(value) for value in set(values)}
    if all(name.lstrip("-").isdigit() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))


def label_text(value: Any) -> str:
    """Returns a label as text: 1, 1.0 and "1" are one label."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _texts(rows: "Dataset", column: str) -> list[str]:
    texts = list(rows[column])
    for row, text in enumerate(texts):
        if not isinstance(text, str) or not text.strip():
            shown = "empty" if text is None or text == "" or isinstance(text, str) else repr(text)
            raise DataError(
                f"row {row_number(rows, row)}: the column {column} is {shown}, not text; mend or "
                f"remove the row"
            )
    return texts
