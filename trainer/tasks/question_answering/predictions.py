"""Predictions: the best spans of each window as text positions, and the answer to each question."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.answers import answer_texts
from trainer.data.encoded import PreparedSplit
from trainer.tasks.base import Record
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.spans import best_spans, merge, null_probability

if TYPE_CHECKING:
    from datasets import Dataset


def window_records(
    start_logits: Tensor,
    end_logits: Tensor,
    split: PreparedSplit,
    ids: np.ndarray,
    settings: QuestionAnsweringSettings,
) -> list[Record]:
    """Returns the best spans of each window `ids`, in characters of the context with their scores,
    and the score of "no answer". Logits are [batch, seq]."""
    starts, ends = split.ragged("token_starts"), split.ragged("token_ends")
    offsets, first = starts.offsets[ids], split.array("context_start")[ids]
    last = first + starts.offsets[ids + 1] - offsets - 1
    best = best_spans(
        start_logits,
        end_logits,
        torch.from_numpy(first).to(start_logits.device),
        torch.from_numpy(last).to(start_logits.device),
        num_best=settings.num_best,
        max_answer_length=settings.max_answer_length,
    )
    exists = best.scores.isfinite()
    shift = torch.from_numpy(offsets - first)[:, None]
    anywhere = torch.from_numpy(offsets)[:, None]
    characters = [
        column.values[torch.where(exists, tokens + shift, anywhere).numpy()]
        for column, tokens in ((starts, best.starts), (ends, best.ends))
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
                for begin, end, score, real in zip(*spans, strict=True)
                if real
            ],
        }
        for index, null_score, *spans in zip(
            ids,
            null_scores.tolist(),
            *(positions.tolist() for positions in characters),
            best.scores.tolist(),
            exists.tolist(),
            strict=True,
        )
    ]


def question_answers(
    records: list[Record], rows: "Dataset", columns: dict[str, str], num_best: int
) -> list[Record]:
    """Returns the answer to each question, in the order of the rows, from all its windows.

    `records` are those of `window_records`, and `columns` maps id, question, context and answers to
    their columns. `prediction` is the best text, even if "no answer" is more likely.
    """
    windows: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda record: record["id"]):
        windows.setdefault(record["question"], []).append(record)
    indices = sorted(windows)
    answers: list[Record] = []
    asked: Any = rows.select(indices).select_columns(list(columns.values()))
    for index, values in zip(indices, asked, strict=True):
        row: dict[str, Any] = {key: values[name] for key, name in columns.items()}
        spans = merge((window["spans"] for window in windows[index]), num_best)
        texts = [row["context"][begin:end].strip() for begin, end in spans]
        # As in BERT's official script, the window that is least sure of "no answer" counts.
        null_score = min(window["null_score"] for window in windows[index])
        answers.append(
            {
                "id": str(row["id"]),
                "question": row["question"],
                "prediction": next((text for text in texts if text), ""),
                "no_answer_probability": null_probability(null_score, spans.values()),
                "answers": answer_texts(row["answers"]),
            }
        )
    return answers
