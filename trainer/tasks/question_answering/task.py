"""Extractive question answering: an answer is a span of its context, or there is none."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from trainer.data.answers import answer_texts, answers_of
from trainer.data.columns import column_name
from trainer.data.encoded import EncodedColumns, PreparedSplit, Summary
from trainer.data.rows import numbered
from trainer.errors import DataError
from trainer.metrics.answers import BESIDE_SQUAD, METRICS, SCALES, answer_metrics
from trainer.models.decoder import is_decoder
from trainer.models.span_head import ensure_span_head
from trainer.models.tokenizers.special_tokens import SpecialTokens, TextTokenizer
from trainer.recipe.data import Columns
from trainer.recipe.schema import Recipe
from trainer.tasks.base import LossTerm, Record, Task
from trainer.tasks.batch import Batch, attention_mask, pad
from trainer.tasks.generation.zero_shot import GeneratedAnswer
from trainer.tasks.question_answering.diagnosis import diagnose
from trainer.tasks.question_answering.questions import Question, question_of
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.spans import best_spans, merge, null_probability
from trainer.tasks.question_answering.windows import PairTemplate, tokenize, windows_of

if TYPE_CHECKING:
    from datasets import Dataset

TEXT_KEYS = ("id", "question", "context", "answers")


NUM_OUTPUTS = 2
"""Of the head: whether a token starts the answer, and whether it ends it."""


class QuestionAnswering(Task):
    """Cross-entropy of the first and of the last token of the answer; an example is a window.

    Windows that do not hold the whole answer, and those of questions without one, are to point at
    the null position (Devlin et al. 2019, section 4.3).
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
    optional_columns = ("is_impossible",)

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
        self.names = {key: column_name(getattr(columns, key)) for key in TEXT_KEYS}
        self.tokenizer = tokenizer
        self.text_tokenizer = TextTokenizer(tokenizer, special_tokens)
        self.max_seq_length = max_seq_length
        self.stride = settings.resolved_stride(max_seq_length)
        self.template = PairTemplate.of(tokenizer, is_decoder=is_decoder)

    def config_values(self) -> dict[str, Any]:
        # A model that had a classifier counts its classes there, and span heads read it.
        return {"num_labels": NUM_OUTPUTS}

    @classmethod
    def pair(cls, recipe: Recipe) -> str | None:
        return "question and context"

    @classmethod
    def texts(cls, recipe: Recipe, rows: "Dataset") -> Iterator[str]:
        """Returns the questions, and each context once."""
        given, seen = recipe.data.columns, set[str]()
        question, context = column_name(given.question), column_name(given.context)
        for _, chunk in numbered(rows, [question, context]):
            yield from (text for text in chunk[question] if isinstance(text, str))
            contexts = (text for text in chunk[context] if isinstance(text, str))
            new = [text for text in dict.fromkeys(contexts) if text not in seen]
            seen.update(new)
            yield from new

    @classmethod
    def shape(cls, recipe: Recipe, model_config: Any) -> str:
        ensure_span_head(model_config)
        model_config.num_labels = NUM_OUTPUTS
        return cls.auto_model

    @classmethod
    def build(cls, recipe: Recipe, train: "Dataset", tokenizer: Any, model_config: Any) -> Self:
        assert isinstance(recipe.task, QuestionAnsweringSettings)
        ensure_span_head(model_config)
        made = cls(
            recipe.task,
            columns=recipe.data.columns,
            tokenizer=tokenizer,
            max_seq_length=recipe.batch.max_seq_length,
            is_decoder=is_decoder(model_config),
            special_tokens=recipe.data.special_tokens,
        )
        if recipe.task.zero_shot is not None and recipe.model.initialization == "pretrained":
            made.zero_shot = GeneratedAnswer(
                recipe.task.zero_shot,
                columns=made.names,
                tokenizer=made.text_tokenizer,
                model_config=model_config,
            )
        return made

    def encoding_settings(self) -> dict[str, Any]:
        return {
            "task": "question_answering",
            "length": self.max_seq_length,
            "stride": self.stride,
            "null_is_last": self.template.null_is_last,
        }

    def without_targets(self, rows: "Dataset", *, named: bool) -> str | None:
        states = self._answered(rows)
        if True in states or (named and False in states):
            return None
        found = "no answer" if False in states else "nothing"
        return f"the column {self.names['answers']} has {found} in every row"

    def lacks_metric(self, metric: str, rows: "Dataset") -> str | None:
        if metric.startswith("HasAns_") or metric in BESIDE_SQUAD:
            return None if True in self._answered(rows) else "none of its questions has an answer"
        return None

    def notes(self, split: str, prepared: PreparedSplit) -> list[str]:
        if True in self._answered(prepared.rows):
            return []
        return [f"no {split} question has an answer"]

    def diagnose(self, metrics: Mapping[str, Any]) -> list[str]:
        return diagnose(metrics)

    def _answered(self, rows: "Dataset") -> set[bool | None]:
        """Returns whether rows have an answer, with None for those that say nothing; looks no
        further than the first that has one."""
        name, found = self.names["answers"], set[bool | None]()
        for _, chunk in numbered(rows, [name]):
            for value in chunk[name]:
                try:
                    answers = answers_of(value)
                except DataError:  # which encoding refuses, with its row
                    return {True}
                if answers:
                    return {True}
                found.add(None if answers is None else False)
        return found

    def encode(self, rows: "Dataset", summary: Summary) -> Iterator[EncodedColumns]:
        """Returns columns of windows: their tokens and what belongs to them.

        `question` is the index of the row; `start`, `end` and `null` are positions in the window,
        and `context_start` that of the first token of the context, of whose tokens `token_starts`
        and `token_ends` are the characters.
        """
        known: dict[str, int] = {}
        first = 0
        also = {key: key for key in self.optional_columns if key in rows.column_names}
        names = {**also, **self.names}
        for numbers, chunk in numbered(rows, list(names.values())):
            questions: dict[int, Question] = {}
            for index, number in enumerate(numbers):
                row = {key: chunk[name][index] for key, name in names.items()}
                made = question_of(row, number, known)
                if isinstance(made, str):
                    summary.reject(made)
                else:
                    questions[index] = made
            asked = tokenize(self.text_tokenizer, [one.question for one in questions.values()])
            read = tokenize(self.text_tokenizer, [one.context for one in questions.values()])
            columns: dict[str, list[Any]] = {}
            for index, one in questions.items():
                special = asked[one.question].special or read[one.context].special
                if special:
                    self.text_tokenizer.remark(special, summary)
                windows = windows_of(
                    one,
                    asked[one.question],
                    read[one.context],
                    template=self.template,
                    max_seq_length=self.max_seq_length,
                    stride=self.stride,
                )
                if isinstance(windows, str):
                    summary.reject(windows)
                    continue
                for window in windows:
                    for name, value in {"question": first + index, **window}.items():
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
        made = model(**inputs)
        logits = {"start": made.start_logits.float(), "end": made.end_logits.float()}
        mask = inputs.get("attention_mask")
        if mask is not None:
            # Of all positions only padding is left out, which is no part of a window: with it the
            # loss would depend on what else is in the batch, and so on how a step was cut up.
            logits = {name: one.masked_fill(mask == 0, -torch.inf) for name, one in logits.items()}
        losses = [
            functional.cross_entropy(logits[term.name], targets[term.name], reduction="sum")
            for term in self.loss_terms
        ]
        return torch.stack(losses), (logits["start"].detach(), logits["end"].detach())

    def statistics(self, outputs: Any, targets: dict[str, Tensor]) -> Tensor:
        """Returns how many starts and ends are those of the targets, and the number of windows."""
        start, end = (
            (logits.argmax(-1) == targets[name]).sum()
            for name, logits in zip(("start", "end"), outputs, strict=True)
        )
        return torch.stack([start, end, torch.full_like(start, len(outputs[0]))]).double()

    def records(
        self, outputs: Any, targets: dict[str, Tensor], split: PreparedSplit, ids: np.ndarray
    ) -> list[Record]:
        """Returns the best spans of each window, as characters, and the score of "no answer"."""
        start_logits, end_logits = cast(tuple[Tensor, Tensor], outputs)
        starts, ends = split.ragged("token_starts"), split.ragged("token_ends")
        offsets, first = starts.offsets[ids], split.array("context_start")[ids]
        last = first + starts.offsets[ids + 1] - offsets - 1
        found = best_spans(
            start_logits,
            end_logits,
            torch.from_numpy(first).to(start_logits.device),
            torch.from_numpy(last).to(start_logits.device),
            num_best=self.settings.num_best,
            max_answer_length=self.settings.max_answer_length,
        )
        exists = found.scores.isfinite()
        shift = torch.from_numpy(offsets - first)[:, None]
        anywhere = torch.from_numpy(offsets)[:, None]
        places = [
            column.values[torch.where(exists, tokens + shift, anywhere).numpy()]
            for column, tokens in ((starts, found.starts), (ends, found.ends))
        ]
        null = torch.from_numpy(split.array("null")[ids]).to(start_logits.device)[:, None]
        null_scores = (start_logits.gather(1, null) + end_logits.gather(1, null))[:, 0]
        return [
            {
                "id": int(index),
                "question": int(split.array("question")[index]),
                "null_score": null_score,
                "spans": [
                    ((begin, end), score)
                    for begin, end, score, real in zip(*values, strict=True)
                    if real
                ],
            }
            for index, null_score, *values in zip(
                ids,
                null_scores.tolist(),
                *(place.tolist() for place in places),
                found.scores.tolist(),
                exists.tolist(),
                strict=True,
            )
        ]

    def answers(self, records: list[Record], split: PreparedSplit) -> list[Record]:
        """Returns one record for each question, in the order of the rows, from all its windows.

        `prediction` is the best text, whether or not "no answer" is likelier.
        """
        windows: dict[int, list[Record]] = {}
        for record in sorted(records, key=lambda record: record["id"]):
            windows.setdefault(record["question"], []).append(record)
        asked = sorted(windows)
        rows = split.rows.select(asked).select_columns(list(self.names.values()))
        made: list[Record] = []
        for index, values in zip(asked, rows, strict=True):
            row = {key: values[name] for key, name in self.names.items()}
            spans = merge((one["spans"] for one in windows[index]), self.settings.num_best)
            texts = [row["context"][begin:end].strip() for begin, end in spans]
            # As in BERT's official script, the window that is least sure of "no answer" counts.
            null_score = min(one["null_score"] for one in windows[index])
            made.append(
                {
                    "id": str(row["id"]),
                    "question": row["question"],
                    "prediction": next((text for text in texts if text), ""),
                    "no_answer_probability": null_probability(null_score, spans.values()),
                    "answers": answer_texts(row["answers"]),
                }
            )
        return made

    def metrics(
        self,
        statistics: np.ndarray,
        answers: list[Record],
        validation: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Returns the scores of the answers, and how often a window's positions are right.

        `null_threshold` is that of the best F1 on the validation split: it is found there and used
        elsewhere. `null_threshold_from` says where no metrics of it were given.
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
