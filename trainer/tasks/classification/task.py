"""Classification of a text or a pair of texts into any number of labels."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.columns import column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.overlap import num_contradictory, row_hashes
from trainer.data.rows import numbered
from trainer.errors import ConfigError, DataError
from trainer.metrics.classification import from_counts
from trainer.models.tokenizers.special_tokens import SpecialTokens, TextTokenizer
from trainer.recipe.data import Columns
from trainer.recipe.schema import Recipe
from trainer.tasks.base import LossTerm, Record, Task
from trainer.tasks.batch import Batch, attention_mask, pad
from trainer.tasks.classification.diagnosis import diagnose
from trainer.tasks.classification.labels import (
    class_names,
    index_of,
    is_label,
    label_indices,
    label_names,
    what_stands,
    what_stands_for_none,
)
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.tasks.generation.zero_shot import LabelLikelihood
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from datasets import Dataset


class Classification(Task):
    """Cross-entropy over labels; its denominator is the sum of the class weights of the targets."""

    Settings = ClassificationSettings
    auto_model = "AutoModelForSequenceClassification"
    needs_only_logits = True
    loss_terms = (LossTerm("cross_entropy"),)
    target = "data.columns.label"

    def __init__(
        self,
        *,
        labels: Sequence[str],
        columns: Columns,
        tokenizer: Any,
        max_seq_length: int,
        class_weights: Sequence[float] | None = None,
        label_smoothing: float = 0.0,
        check_labels: bool = True,
        special_tokens: SpecialTokens = "literal",
    ) -> None:
        self.labels = tuple(labels)
        self.check_labels = check_labels
        self.text, self.label = column_name(columns.text), column_name(columns.label)
        self.text_pair = column_name(columns.text_pair) if columns.text_pair else None
        self.tokenizer = tokenizer
        self.text_tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.max_seq_length = max_seq_length
        self.label_smoothing = label_smoothing
        self.class_weights = torch.tensor(class_weights or [1.0] * len(self.labels))
        self.num_statistics = 3 * len(self.labels)
        binary = ["precision", "recall", "f1"] if len(self.labels) == 2 else []
        shares: list[str] = ["accuracy", *binary, "precision_macro", "recall_macro", "f1_macro"]
        self.metrics_offered = (*shares, "loss")
        self.scales = dict.fromkeys(shares, "0-1")

    @classmethod
    def pair(cls, recipe: Recipe) -> str | None:
        return "the two texts" if recipe.data.columns.text_pair else None

    @classmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        given = recipe.data.columns
        names = [column_name(column) for column in (given.text, given.text_pair) if column]
        for _, chunk in numbered(rows, names):
            yield from (text for name in names for text in chunk[name] if isinstance(text, str))

    @classmethod
    def shape(cls, recipe: Recipe, model_config: Any) -> str:
        assert isinstance(recipe.task, ClassificationSettings)
        if recipe.task.labels is None:
            raise ConfigError(
                "task.labels: without data nobody can tell how many there are",
                key="task.labels",
                hint="name them",
            )
        model_config.num_labels = len(recipe.task.labels)
        return cls.auto_model

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        """Returns the task with the labels, and balanced weights, that the train rows give."""
        settings, column = recipe.task, column_name(recipe.data.columns.label)
        assert isinstance(settings, ClassificationSettings)
        skip_bad = recipe.data.on_bad_example == "skip"
        checked = settings.check_labels
        labels = settings.labels or label_names(train, column, skip_bad=skip_bad, checked=checked)
        if len(labels) < 2:
            raise DataError(
                f"the train split has one label only, {listed(labels)}; at least 2 differ"
            )
        weights = None if settings.class_weights == "balanced" else settings.class_weights
        if weights is not None and len(weights) != len(labels):
            raise ConfigError(
                f"task.class_weights has {len(weights)} numbers for the {len(labels)} labels "
                f"{listed(labels)}",
                key="task.class_weights",
                value=weights,
            )
        made = cls(
            labels=labels,
            columns=recipe.data.columns,
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            class_weights=weights,
            label_smoothing=settings.label_smoothing,
            check_labels=checked,
            special_tokens=recipe.data.special_tokens,
        )
        if settings.class_weights == "balanced":
            known = label_indices(train, column, labels, checked=checked)
            found = [index_of(value, known, checked=checked) for value in train[column]]
            counts = np.bincount([index for index in found if index >= 0], minlength=len(labels))
            if not counts.all():
                absent = labels[int(np.argmin(counts))]
                raise ConfigError(
                    f"task.class_weights: balanced, but no train row is {excerpt(absent)}",
                    key="task.class_weights",
                    value="balanced",
                )
            made.class_weights = torch.tensor(
                counts.sum() / (len(labels) * counts), dtype=torch.float32
            )
        if settings.zero_shot is not None and recipe.model.initialization == "pretrained":
            fields = {"text": made.text, "text_pair": made.text_pair}
            made.zero_shot = LabelLikelihood(
                settings.zero_shot,
                labels=made.labels,
                columns={field: name for field, name in fields.items() if name is not None},
                tokenizer=made.text_tokenizer,
                model_config=model_config,
            )
        return made

    def config_values(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "problem_type": None,  # whatever the model was trained for before: here one label
        }

    def encoding_settings(self) -> dict[str, Any]:
        """Returns what changes the encoded rows, beside the rows and the tokenizer."""
        return {
            "task": "classification",
            "labels": self.labels,
            "length": self.max_seq_length,
            "numbered": True,  # examples say which row they were; older ones on disk do not
            **({"check_labels": True} if self.check_labels else {}),  # it finds more of them
        }

    def without_targets(self, rows: "Dataset", *, named: bool) -> str | None:
        known = label_indices(rows, self.label, self.labels, checked=self.check_labels)
        found = what_stands_for_none(rows, self.label, known)
        return found and f"the column {self.label} has {found} in every row"

    def notes(self, split: str, prepared: PreparedSplit) -> list[str]:
        counts = np.bincount(prepared.array("label"), minlength=len(self.labels))
        present = [label for label, count in zip(self.labels, counts, strict=True) if count]
        absent = [label for label, count in zip(self.labels, counts, strict=True) if not count]
        notes: list[str] = []
        if len(present) == 1:
            notes.append(f"every {split} row has the label {excerpt(present[0])!r}")
        elif absent and split == "train":
            notes.append(f"no train row has the label {listed(absent)}")
        if split == "train":
            read = [name for name in (self.text, self.text_pair) if name is not None]
            texts = row_hashes(prepared.rows, read)[prepared.array("row")]
            twice = num_contradictory(texts, prepared.array("label"))
            if twice:
                notes.append(f"{twice:,} train rows have the text of another one and not its label")
        names = class_names(prepared.rows, self.label)
        if names is not None and not set(names) & set(self.labels):
            notes.append(
                f"the classes {listed(names)} of the {split} split are taken by position for "
                f"{listed(self.labels)}"
            )
        if split == "train" and "-1" in self.labels and len(self.labels) > 2:
            notes.append(
                f"-1 is a label of {counts[self.labels.index('-1')]:,} train rows; where it means "
                f"that there is none, set data.exclude: {{{self.label}: [-1]}}"
            )
        return notes

    def diagnose(self, metrics: Mapping[str, Any]) -> list[str]:
        return diagnose(metrics)

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Returns columns input_ids, label, the index of the row and, for pairs, token_type_ids."""
        names = [name for name in (self.text, self.text_pair) if name is not None]
        known = label_indices(rows, self.label, self.labels, checked=self.check_labels)
        first = 0
        for numbers, chunk in numbered(rows, [*names, self.label]):
            kept: list[int] = []
            labels = [
                index_of(value, known, checked=self.check_labels) for value in chunk[self.label]
            ]
            for index, number in enumerate(numbers):
                wrong = [name for name in names if not _is_text(chunk[name][index])]
                if wrong:
                    value = chunk[wrong[0]][index]
                    shown = "empty" if value is None or isinstance(value, str) else excerpt(value)
                    summary.reject(
                        f"row {number}: the column {wrong[0]} is {shown}, not text; fix or remove "
                        f"the row"
                    )
                elif labels[index] == -1:
                    summary.reject(f"row {number}: {self._wrong(chunk[self.label][index])}")
                else:
                    kept.append(index)
            if kept:
                texts = ([chunk[name][index] for index in kept] for name in names)
                yield {
                    **self._tokens(*texts, summary=summary),
                    "label": [labels[index] for index in kept],
                    "row": [first + index for index in kept],
                }
            first += len(numbers)

    def _wrong(self, value: Any) -> str:
        if not is_label(value):
            return f"the column {self.label} {what_stands(value)}"
        return (
            f"the label {excerpt(repr(value))} is none of {listed(self.labels)}; set task.labels "
            f"or fix the row"
        )

    def _tokens(self, *texts: list[str], summary: Summary) -> dict[str, list[Any]]:
        made = self.text_tokenizer.encode(*texts)
        for token in made.special.values():
            self.text_tokenizer.remark(token, summary)
        lengths = [len(ids) for ids in made.columns["input_ids"]]
        for length in lengths:
            summary.measure(length, self.max_seq_length)
        if max(lengths) > self.max_seq_length:
            made = self.text_tokenizer.encode(
                *texts, truncation=True, max_length=self.max_seq_length
            )
        return made.columns

    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        inputs = {"input_ids": pad(split.ragged("input_ids"), ids, self.tokenizer.pad_token_id)}
        inputs |= attention_mask(split.lengths[ids])
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

    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        """Returns, for each class, how many were answered rightly, answered so, and are of it."""
        labels, predicted = targets["labels"], outputs.argmax(-1)
        of_each = (labels[predicted == labels], predicted, labels)
        size = len(self.labels)
        return torch.cat([torch.bincount(one, minlength=size) for one in of_each]).double()

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return from_counts(*statistics.astype(np.int64).reshape(3, -1), labels=self.labels)

    def records(
        self, outputs: Any, targets: dict[str, Tensor], split: PreparedSplit, ids: np.ndarray
    ) -> list[Record]:
        probabilities, predicted = outputs.softmax(-1).max(-1)
        return [
            {
                "id": index,
                "label": self.labels[label],
                "prediction": self.labels[prediction],
                "probability": probability,
            }
            for index, label, prediction, probability in zip(
                ids.tolist(),
                targets["labels"].tolist(),
                predicted.tolist(),
                probabilities.tolist(),
                strict=True,
            )
        ]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
