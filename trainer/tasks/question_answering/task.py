"""The task of extractive question answering: an answer is a span of its context, or none exists."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.columns import column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.rows import numbered
from trainer.errors import DataError
from trainer.metrics.answers import BESIDE_SQUAD, METRICS, SCALES, answer_metrics
from trainer.metrics.scores import Scores
from trainer.models.decoder import is_decoder
from trainer.models.span_head import ensure_span_head
from trainer.models.tokenizers.special_tokens import SpecialTokens, TextTokenizer
from trainer.recipe.data import Columns
from trainer.recipe.schema import Recipe
from trainer.tasks.base import LossTerm, Task
from trainer.tasks.batch import Batch, attention_mask, full_inputs, has_types, pad
from trainer.tasks.finding import Finding
from trainer.tasks.generation.zero_shot import GeneratedAnswer
from trainer.tasks.judgement import Judgement
from trainer.tasks.question_answering.diagnosis import diagnose
from trainer.tasks.question_answering.judgement import judge, shown_texts
from trainer.tasks.question_answering.predictions import question_answers, window_records
from trainer.tasks.question_answering.questions import Question, answer_state, question_of
from trainer.tasks.question_answering.scores import never_answering, question_scores
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.windows import PairTemplate, tokenize, windows_of
from trainer.tasks.reported import Record

if TYPE_CHECKING:
    from datasets import Dataset

NUM_OUTPUTS = 2
"""Outputs of the head per token: the logits of being the first and the last of the answer."""


class QuestionAnswering(Task):
    """Cross-entropy of the first and the last token of the answer; an example is a window.

    The target of a window without the whole answer, and of a question without an answer, is the
    null position (Devlin et al. 2019, section 4.3).
    """

    Settings = QuestionAnsweringSettings
    auto_model = "AutoModelForQuestionAnswering"
    loss_terms = (LossTerm("start", 0.5), LossTerm("end", 0.5))
    num_statistics = 3
    metrics_offered = ("loss", *METRICS)
    scales = SCALES
    reads_records = True
    tunes_threshold = True
    target = "data.columns.answers"
    predictor = "trainer.tasks.question_answering.predictor:QuestionAnsweringPredictor"
    optional_columns = ("is_impossible",)
    has_types: bool
    """Whether the model distinguishes question and context; only of a task for plans."""

    def __init__(
        self,
        settings: QuestionAnsweringSettings,
        *,
        columns: Columns,
        tokenizer: Any,
        max_seq_length: int,
        is_decoder: bool,
        special_tokens: SpecialTokens = "literal",
    ) -> None:
        self.settings = settings
        self.names = {key: column_name(getattr(columns, key)) for key in settings.roles}
        self.tokenizer = tokenizer
        self.text_tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.max_seq_length = max_seq_length
        self.stride = settings.resolved_stride(max_seq_length)
        self.template = PairTemplate.of(tokenizer, is_decoder=is_decoder)

    @classmethod
    def unread(cls, recipe: Recipe, model_config: Any) -> Self:
        ensure_span_head(model_config)
        task = cls.__new__(cls)
        task.has_types = has_types(model_config)
        return task

    def full_batch(self, size: int, length: int) -> Batch:
        targets = {name: torch.zeros(size, dtype=torch.int64) for name in ("start", "end")}
        counts = torch.full((2,), size, dtype=torch.float64)
        inputs = full_inputs(size, length, padded=True, types=self.has_types)
        return Batch(inputs=inputs, targets=targets, counts=counts)

    def config_values(self) -> dict[str, Any]:
        # num_labels is the size of the span head; a classifier's config may hold its class count
        # there.
        return {"num_labels": NUM_OUTPUTS}

    @classmethod
    def pair(cls, recipe: Recipe) -> str | None:
        return "question and context"

    @classmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        """Yields all questions, and each context once."""
        columns, seen = recipe.data.columns, set[str]()
        question, context = column_name(columns.question), column_name(columns.context)
        for _, chunk in numbered(rows, [question, context]):
            yield from (text for text in chunk[question] if isinstance(text, str))
            contexts = (text for text in chunk[context] if isinstance(text, str))
            new = [text for text in dict.fromkeys(contexts) if text not in seen]
            seen.update(new)
            yield from new

    @classmethod
    def model_class(cls, recipe: Recipe, model_config: Any) -> str:
        ensure_span_head(model_config)
        return cls.auto_model

    @classmethod
    def head_config_values(cls, recipe: Recipe) -> dict[str, Any]:
        return {"num_labels": NUM_OUTPUTS}

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        assert isinstance(recipe.task, QuestionAnsweringSettings)
        ensure_span_head(model_config)
        task = cls(
            recipe.task,
            columns=recipe.data.columns,
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            is_decoder=is_decoder(model_config),
            special_tokens=recipe.data.special_tokens,
        )
        if recipe.task.zero_shot is not None and recipe.model.initialization == "pretrained":
            task.zero_shot = GeneratedAnswer(
                recipe.task.zero_shot,
                columns=task.names,
                tokenizer=task.text_tokenizer,
                model_config=model_config,
            )
        return task

    def encoding_settings(self) -> dict[str, Any]:
        return {
            "task": "question_answering",
            "format": 2,
            "length": self.max_seq_length,
            "stride": self.stride,
            "null_is_last": self.template.null_is_last,
        }

    def why_without_targets(self, rows: "Dataset", *, named: bool) -> str | None:
        state = answer_state(rows, self.names["answers"])
        if state == "answers" or (state == "no answers" and named):
            return None
        problem = "has no answer in any row" if state == "no answers" else "is empty in every row"
        return f"the column {self.names['answers']} {problem}"

    def why_not_measurable(self, metric: str, rows: "Dataset") -> str | None:
        if metric.startswith("HasAns_") or metric in BESIDE_SQUAD:
            has_answers = answer_state(rows, self.names["answers"]) == "answers"
            return None if has_answers else "none of its questions has an answer"
        return None

    def notes(self, split: str, prepared: PreparedSplit) -> list[str]:
        if answer_state(prepared.rows, self.names["answers"]) == "answers":
            return []
        return [f"no {split} question has an answer"]

    @classmethod
    def diagnose(cls, metrics: Mapping[str, Any]) -> list[Finding]:
        return diagnose(metrics)

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Yields the columns of `windows_of`, and `row`, the index of the window's row."""
        known_ids: dict[str, int] = {}
        first = 0
        optional = {key: key for key in self.optional_columns if key in rows.column_names}
        names = {**optional, **self.names}
        for numbers, chunk in numbered(rows, list(names.values())):
            questions: dict[int, Question] = {}
            for index, number in enumerate(numbers):
                row = {key: chunk[name][index] for key, name in names.items()}
                question = question_of(row, number, known_ids)
                if isinstance(question, DataError):
                    summary.reject(question)
                else:
                    questions[index] = question
            texts = tokenize(self.text_tokenizer, [item.question for item in questions.values()])
            contexts = tokenize(self.text_tokenizer, [item.context for item in questions.values()])
            columns: dict[str, list[Any]] = {}
            for index, question in questions.items():
                text, context = texts[question.question], contexts[question.context]
                special = text.special or context.special
                if special:
                    self.text_tokenizer.remark(special, summary)
                windows = windows_of(
                    question,
                    text,
                    context,
                    template=self.template,
                    max_seq_length=self.max_seq_length,
                    stride=self.stride,
                )
                if isinstance(windows, DataError):
                    summary.reject(windows)
                    continue
                for window in windows:
                    for name, value in {"row": first + index, **window}.items():
                        columns.setdefault(name, []).append(value)
            yield columns
            first += len(numbers)

    def collate(self, split: PreparedSplit, ids: np.ndarray, epoch: int) -> Batch:
        inputs = {"input_ids": pad(split.ragged("input_ids"), ids, self.tokenizer.pad_token_id)}
        inputs |= attention_mask(split.lengths[ids])
        if "token_type_ids" in split.columns:
            inputs["token_type_ids"] = pad(split.ragged("token_type_ids"), ids, 0)
        targets = {name: torch.from_numpy(split.array(name)[ids]) for name in ("start", "end")}
        counts = torch.full((2,), len(ids), dtype=torch.float64)
        return Batch(inputs=inputs, targets=targets, counts=counts)

    def loss_sums(
        self, model: nn.Module, inputs: dict[str, Tensor], targets: dict[str, Tensor]
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        output = model(**inputs)
        logits = {"start": output.start_logits.float(), "end": output.end_logits.float()}
        mask = inputs.get("attention_mask")
        if mask is not None:
            # Mask padding only. Otherwise the softmax would run over padding, and the loss depend
            # on the batch's longest example.
            logits = {name: x.masked_fill(mask == 0, -torch.inf) for name, x in logits.items()}
        losses = [
            functional.cross_entropy(logits[term.name], targets[term.name], reduction="sum")
            for term in self.loss_terms
        ]
        return torch.stack(losses), (logits["start"].detach(), logits["end"].detach())

    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        """Returns the number of correct starts, of correct ends, and of windows."""
        start, end = (
            (logits.argmax(-1) == targets[name]).sum()
            for name, logits in zip(("start", "end"), outputs, strict=True)
        )
        return torch.stack([start, end, torch.full_like(start, len(outputs[0]))]).double()

    def records(
        self, outputs: Any, targets: dict[str, Tensor], split: PreparedSplit, ids: np.ndarray
    ) -> list[Record]:
        start_logits, end_logits = cast(tuple[Tensor, Tensor], outputs)
        return window_records(start_logits, end_logits, split, ids, self.settings)

    def answers(self, records: list[Record], split: PreparedSplit) -> list[Record]:
        return question_answers(records, split.rows, self.names, self.settings.num_best)

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the scores of the answers, and the accuracy of a window's start and end.

        `null_threshold` gives the best F1 on the split on which it was found; `null_threshold_from`
        is "validation", or "these answers" if the threshold was found on this split.
        """
        start, end, total = statistics.tolist()
        if not total:
            return {}
        threshold = None if validation is None else validation["null_threshold"]
        return {
            **answer_metrics(answers, threshold),
            "null_threshold_from": "these answers" if validation is None else "validation",
            "start_accuracy": 100 * start / total,
            "end_accuracy": 100 * end / total,
        }

    @classmethod
    def judge(cls, answer: Record, metrics: Mapping[str, Any]) -> Judgement:
        return judge(answer, metrics)

    @classmethod
    def shown_texts(cls, answer: Record, row: Mapping[str, Any]) -> dict[str, str]:
        return shown_texts(answer, row)

    @classmethod
    def scores(cls, answers: Sequence[Record], metrics: Mapping[str, Any]) -> Scores | None:
        return question_scores(answers, metrics)

    @classmethod
    def scores_without_reading(
        cls, answers: Sequence[Record], metrics: Mapping[str, Any]
    ) -> tuple[str, Scores] | None:
        return never_answering(answers, metrics)
