"""Answers to questions about contexts, or none, by the threshold of the validation split."""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from trainer.data.columns import ROW, column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.metrics.numbers import finite
from trainer.models.decoder import is_decoder
from trainer.recipe.data import Columns
from trainer.recipe.schema import Recipe
from trainer.tasks.predictor import Predictor
from trainer.tasks.question_answering.predictions import question_answers
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.task import QuestionAnswering
from trainer.tasks.reported import Record

if TYPE_CHECKING:
    from datasets import Dataset

ROLES = ("question", "context")


class QuestionAnsweringPredictor(Predictor):
    """Answers a question by a span of its context, or by no text.

    An answer has `prediction`, which is empty for "no answer"; `best_answer`, the likeliest text,
    with its `probability`; `no_answer_probability`; and `null_score`, the score of "no answer" less
    that of the best answer, the logarithm of the ratio of the two probabilities.
    """

    fields = ("prediction", "best_answer", "probability", "no_answer_probability", "null_score")

    def __init__(
        self, task: QuestionAnswering, columns: Mapping[str, Any], threshold: float | None
    ) -> None:
        """Without a threshold, "no answer" is the prediction if it is likelier than any text."""
        self.task = task
        self.columns = columns
        self.threshold = threshold

    @classmethod
    def build(
        cls, recipe: Recipe, tokenizer: Any, model_config: Any, validation: Mapping[str, Any]
    ) -> Self:
        assert isinstance(recipe.task, QuestionAnsweringSettings)
        task = QuestionAnswering(
            recipe.task,
            columns=Columns(),
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            is_decoder=is_decoder(model_config),
            special_tokens=recipe.data.special_tokens,
        )
        columns = {role: getattr(recipe.data.columns, role) for role in ROLES}
        return cls(task, columns, finite(validation.get("null_threshold")))

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        return self.task.encode(self._asked(rows), summary)

    def records(self, model: Any, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        batch = self.task.collate(split, ids, epoch=0).to(model.device)
        _, outputs = self.task.loss_sums(model, batch.inputs, batch.targets)
        return self.task.records(outputs, batch.targets, split, ids)

    def answers(self, records: list[Record], split: PreparedSplit) -> dict[int, Record]:
        asked, num_best = self._asked(split.rows), self.task.settings.num_best
        return {
            answer["row"]: self._answer(answer)
            for answer in question_answers(records, asked, self.task.names, num_best)
        }

    def _answer(self, answer: Record) -> Record:
        probability, of_none = answer["probability"], answer["no_answer_probability"]
        limit = probability if self.threshold is None else self.threshold
        known = probability > 0 and of_none > 0
        return {
            "prediction": "" if of_none > limit else answer["prediction"],
            "best_answer": answer["prediction"],
            "probability": probability,
            "no_answer_probability": of_none,
            "null_score": math.log(of_none) - math.log(probability) if known else None,
        }

    def _asked(self, rows: "Dataset") -> "Dataset":
        """Returns the rows under the names of their roles, each with an id and without answers."""
        import datasets

        asked = {role: rows[column_name(self.columns[role])] for role in ROLES}
        numbers = list(rows[ROW])
        return datasets.Dataset.from_dict(
            {
                **{
                    role: [text if isinstance(text, str) else None for text in texts]
                    for role, texts in asked.items()
                },
                "id": [str(number) for number in numbers],
                "answers": ["[]"] * len(numbers),
                ROW: numbers,
            },
            features=datasets.Features(
                {
                    **dict.fromkeys((*ROLES, "id", "answers"), datasets.Value("string")),
                    ROW: datasets.Value("int64"),
                }
            ),
        )
