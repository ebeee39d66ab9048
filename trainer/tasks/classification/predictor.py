"""Labels for texts without labels, with the probability of each."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.errors import ConfigError
from trainer.recipe.schema import Recipe
from trainer.tasks.classification.task import Classification
from trainer.tasks.predictor import Predictor
from trainer.tasks.reported import Record
from trainer.wording import listed

if TYPE_CHECKING:
    from datasets import Dataset


class ClassificationPredictor(Predictor):
    """Answers a text, or a pair, by its likeliest label.

    An answer has `prediction`, its `probability`, and `probabilities`, those of all labels.
    """

    fields = ("prediction", "probability", "probabilities")
    needs_only_logits = Classification.needs_only_logits

    def __init__(self, task: Classification, columns: Mapping[str, Any]) -> None:
        self.task = task
        self.columns = columns

    @classmethod
    def build(
        cls, recipe: Recipe, tokenizer: Any, model_config: Any, validation: Mapping[str, Any]
    ) -> Self:
        labels = _labels_of(model_config)
        names = recipe.data.columns
        task = Classification(
            labels=labels,
            columns=names,
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            special_tokens=recipe.data.special_tokens,
        )
        pair = {} if names.text_pair is None else {"text_pair": names.text_pair}
        return cls(task, {"text": names.text, **pair})

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        return self.task.encode_unlabelled(rows, summary)

    def records(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        batch = self.task.collate(split, ids, epoch=0).to(model.device)
        _, logits = self.task.loss_sums(model, batch.inputs, batch.targets)
        probabilities, predicted = logits.softmax(-1), logits.argmax(-1)
        labels = self.task.labels
        return [
            {
                "row": row,
                "prediction": labels[index],
                "probability": shares[index],
                "probabilities": dict(zip(labels, shares, strict=True)),
            }
            for row, index, shares in zip(
                split.array("row")[ids].tolist(),
                predicted.tolist(),
                probabilities.tolist(),
                strict=True,
            )
        ]

    def answers(self, records: list[Record], split: PreparedSplit) -> dict[int, Record]:
        return {record["row"]: {name: record[name] for name in self.fields} for record in records}


def _labels_of(model_config: Any) -> list[str]:
    """Returns the labels of a model in the order of its outputs; raises ConfigError if its outputs
    are no classes of which a text has one."""
    labels, kind = dict[int, str](model_config.id2label), model_config.problem_type
    problem = None
    if kind == "multi_label_classification":
        problem = "answers with several labels"
    elif kind == "regression" or len(labels) < 2:
        problem = "answers with a number"
    elif sorted(labels) != list(range(len(labels))) or len({*labels.values()}) < len(labels):
        problem = f"names its classes {listed(labels.values())}"
    if problem is not None:
        raise ConfigError(
            f"the model {problem}, and here a text has one of several labels",
            key="MODEL",
            value=kind,
            hint="name a model that chooses one of several labels",
        )
    return [str(labels[index]) for index in range(len(labels))]
