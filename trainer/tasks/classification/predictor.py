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
        if getattr(model_config, "problem_type", None) in REFUSED:
            raise ConfigError(
                f"the model is built for {model_config.problem_type}, and a text has one label "
                f"here",
                key="MODEL",
                value=model_config.problem_type,
                hint="name a model of classes",
            )
        labels = [model_config.id2label[index] for index in range(model_config.num_labels)]
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


REFUSED = ("regression", "multi_label_classification")
"""Values of `problem_type` of models whose outputs are no classes."""
