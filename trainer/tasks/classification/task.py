"""The task of classification: a label for a text or a pair of texts."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.columns import column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.rows import numbered
from trainer.errors import ConfigError, DataError
from trainer.metrics.classification import from_counts
from trainer.metrics.scores import Scores
from trainer.models.tokenizers.special_tokens import SpecialTokens, TextTokenizer
from trainer.recipe.data import Columns
from trainer.recipe.schema import Recipe
from trainer.tasks.base import LossTerm, Task
from trainer.tasks.batch import Batch, attention_mask, full_inputs, has_types, pad
from trainer.tasks.classification.class_weights import class_weights
from trainer.tasks.classification.diagnosis import diagnose
from trainer.tasks.classification.judgement import judge
from trainer.tasks.classification.label_notes import label_notes
from trainer.tasks.classification.labels import (
    in_place_of_label,
    in_place_of_labels,
    index_of,
    is_label,
    label_indices,
    label_names,
)
from trainer.tasks.classification.scores import class_scores, majority_scores
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.tasks.finding import Finding
from trainer.tasks.generation.zero_shot import LabelLikelihood
from trainer.tasks.judgement import Judgement
from trainer.tasks.reported import Record
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from datasets import Dataset


class Classification(Task):
    """Cross-entropy over labels, divided by the sum of the class weights of the targets."""

    Settings = ClassificationSettings
    auto_model = "AutoModelForSequenceClassification"
    needs_only_logits = True
    has_types: bool
    """Whether the model distinguishes the texts of a pair; only of a task for plans."""
    loss_terms = (LossTerm("cross_entropy"),)
    target = "data.columns.label"
    predictor = "trainer.tasks.classification.predictor:ClassificationPredictor"

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
        self.text_columns = [self.text] if self.text_pair is None else [self.text, self.text_pair]
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
        columns = recipe.data.columns
        names = [column_name(column) for column in (columns.text, columns.text_pair) if column]
        for _, chunk in numbered(rows, names):
            yield from (text for name in names for text in chunk[name] if isinstance(text, str))

    @classmethod
    def head_config_values(cls, recipe: Recipe) -> dict[str, Any]:
        assert isinstance(recipe.task, ClassificationSettings)
        if recipe.task.labels is None:
            raise ConfigError(
                "the number of labels is unknown without the data",
                key="task.labels",
                hint="set task.labels",
            )
        return {"num_labels": len(recipe.task.labels)}

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        """Returns the task with the labels, and the balanced weights, of the train rows.

        Raises DataError if a column of labels does not hold classes, and ConfigError for weights or
        a zero-shot prompt that do not fit the labels or the model.
        """
        settings, column = recipe.task, column_name(recipe.data.columns.label)
        assert isinstance(settings, ClassificationSettings)
        skip_bad = recipe.data.on_bad_example == "skip"
        labels = settings.labels or _labels_of_rows(settings, train, column, skip_bad=skip_bad)
        task = cls(
            labels=labels,
            columns=recipe.data.columns,
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            class_weights=class_weights(settings, train, column, labels),
            label_smoothing=settings.label_smoothing,
            check_labels=settings.check_labels,
            special_tokens=recipe.data.special_tokens,
        )
        if settings.zero_shot is not None and recipe.model.initialization == "pretrained":
            fields = {"text": task.text, "text_pair": task.text_pair}
            task.zero_shot = LabelLikelihood(
                settings.zero_shot,
                labels=task.labels,
                columns={field: name for field, name in fields.items() if name is not None},
                tokenizer=task.text_tokenizer,
                model_config=model_config,
            )
        return task

    @classmethod
    def unread(cls, recipe: Recipe, model_config: Any) -> Self:
        """Returns the task with the recipe's labels, or with two if the data decides."""
        assert isinstance(recipe.task, ClassificationSettings)
        task = cls.__new__(cls)
        task.labels = recipe.task.labels or ("0", "1")
        task.class_weights = torch.ones(len(task.labels))
        task.label_smoothing = recipe.task.label_smoothing
        task.has_types = has_types(model_config)
        return task

    def full_batch(self, size: int, length: int) -> Batch:
        labels = torch.zeros(size, dtype=torch.int64)
        return Batch(
            inputs=full_inputs(size, length, padded=True, types=self.has_types),
            targets={"labels": labels},
            counts=torch.tensor([size], dtype=torch.float64),
        )

    def config_values(self) -> dict[str, Any]:
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {label: index for index, label in enumerate(self.labels)},
            "problem_type": None,  # overrides the loaded model's: each row has exactly one label
        }

    def encoding_settings(self) -> dict[str, Any]:
        return {
            "task": "classification",
            "labels": self.labels,
            "length": self.max_seq_length,
            "format": 2,
            "check_labels": self.check_labels,
        }

    def why_without_targets(self, rows: "Dataset", *, named: bool) -> str | None:
        indices = label_indices(rows, self.label, self.labels, checked=self.check_labels)
        values = in_place_of_labels(rows, self.label, indices, checked=self.check_labels)
        return values and f"the column {self.label} has {values} in every row"

    def notes(self, split: str, prepared: PreparedSplit) -> list[str]:
        return label_notes(split, prepared, self.labels, column=self.label, texts=self.text_columns)

    @classmethod
    def diagnose(cls, metrics: Mapping[str, Any]) -> list[Finding]:
        return diagnose(metrics)

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields input_ids, label, the index of the row and, if the model has them,
        token_type_ids."""
        indices = label_indices(rows, self.label, self.labels, checked=self.check_labels)
        return self._encoded(rows, summary, indices)

    def encode_unlabelled(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields what `encode` does for rows without labels; each label is 0."""
        return self._encoded(rows, summary, None)

    def _encoded(
        self, rows: "Dataset", summary: Summary, indices: Mapping[str, int] | None
    ) -> Iterator[EncodedColumns]:
        names, first = self.text_columns, 0
        for numbers, chunk in numbered(rows, [*names, *[self.label] * (indices is not None)]):
            kept: list[int] = []
            labels = [0] * len(numbers)
            if indices is not None:
                labels = [
                    index_of(value, indices, checked=self.check_labels)
                    for value in chunk[self.label]
                ]
            for index, number in enumerate(numbers):
                wrong = [
                    (role, name)
                    for role, name in zip(("text", "text_pair"), names, strict=False)
                    if not _is_text(chunk[name][index])
                ]
                if wrong:
                    role, name = wrong[0]
                    value = chunk[name][index]
                    shown = "empty" if value is None or isinstance(value, str) else excerpt(value)
                    error = DataError(
                        f"row {number}: the column {name} is {shown}, not text",
                        key=f"data.columns.{role}",
                        value=value,
                        hint="fix or remove the row",
                    )
                    summary.reject(error)
                elif labels[index] == -1:
                    value = chunk[self.label][index]
                    summary.reject(self._problem(value).after(f"row {number}: "))
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

    def _problem(self, value: Any) -> DataError:
        """Returns why a value of the label column cannot be learned, and what to do about it."""
        if is_label(value):
            problem = f"the label {excerpt(repr(value))} is not one of {listed(self.labels)}"
            hint = "set task.labels or fix the row"
        else:
            problem, hint = in_place_of_label(value)
            problem = f"the column {self.label} {problem}"
        return DataError(problem, key="data.columns.label", value=value, hint=hint)

    def _tokens(self, *texts: list[str], summary: Summary) -> dict[str, list[Any]]:
        encoded = self.text_tokenizer.encode(*texts)
        for token in encoded.special.values():
            self.text_tokenizer.remark(token, summary)
        lengths = [len(ids) for ids in encoded.columns["input_ids"]]
        for length in lengths:
            summary.measure(length, self.max_seq_length)
        if max(lengths) > self.max_seq_length:
            encoded = self.text_tokenizer.encode(
                *texts, truncation=True, max_length=self.max_seq_length
            )
        return encoded.columns

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
        """Returns, per class: correct predictions, all predictions, all targets."""
        labels, predicted = targets["labels"], outputs.argmax(-1)
        counted = (labels[predicted == labels], predicted, labels)
        size = len(self.labels)
        return torch.cat([torch.bincount(classes, minlength=size) for classes in counted]).double()

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        return from_counts(*statistics.astype(np.int64).reshape(3, -1), labels=self.labels)

    @classmethod
    def scores(cls, answers: Sequence[Record], metrics: Mapping[str, Any]) -> Scores | None:
        return class_scores(answers, metrics)

    @classmethod
    def scores_without_reading(
        cls, answers: Sequence[Record], metrics: Mapping[str, Any]
    ) -> tuple[str, Scores] | None:
        return majority_scores(answers, metrics)

    @classmethod
    def num_judged(cls, metrics: Mapping[str, Any]) -> dict[str, int]:
        counts: Any = metrics.get("per_class", {}).values()
        return {"accuracy": sum(count["support"] for count in counts)}

    def records(
        self, outputs: Any, targets: dict[str, Tensor], split: PreparedSplit, ids: np.ndarray
    ) -> list[Record]:
        probabilities, predicted = outputs.softmax(-1).max(-1)
        return [
            {
                "id": index,
                "row": row,
                "label": self.labels[label],
                "prediction": self.labels[prediction],
                "probability": probability,
            }
            for index, row, label, prediction, probability in zip(
                ids.tolist(),
                split.array("row")[ids].tolist(),
                targets["labels"].tolist(),
                predicted.tolist(),
                probabilities.tolist(),
                strict=True,
            )
        ]

    @classmethod
    def judge(cls, answer: Record, metrics: Mapping[str, Any]) -> Judgement:
        return judge(answer)


def _labels_of_rows(
    settings: ClassificationSettings, train: "Dataset", column: str, *, skip_bad: bool
) -> tuple[str, ...]:
    """Returns the labels of the train rows; raises DataError if there are fewer than two."""
    labels = label_names(train, column, skip_bad=skip_bad, checked=settings.check_labels)
    if len(labels) < 2:
        raise DataError(
            f"the train split has only one label, {listed(labels)}; classification needs at least "
            f"two",
            key="data.columns.label",
            value=column,
        )
    return labels


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
