"""Predictions: the best spans of each window as text positions, and the answer to each question."""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from trainer.data.answers import answer_texts
from trainer.data.encoded import PreparedSplit
from trainer.tasks.question_answering.articles import first_of_article
from trainer.tasks.question_answering.settings import QuestionAnsweringSettings
from trainer.tasks.question_answering.spans import (
    BestSpans,
    Span,
    answer_probabilities,
    best_spans,
    merge,
)
from trainer.tasks.reported import Record

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
    device, offsets = start_logits.device, split.ragged("token_starts").offsets
    first = split.array("context_start")[ids]
    best = best_spans(
        start_logits,
        end_logits,
        torch.from_numpy(first).to(device),
        torch.from_numpy(first + offsets[ids + 1] - offsets[ids] - 1).to(device),
        num_best=settings.num_best,
        max_answer_length=settings.max_answer_length,
    )
    null = torch.from_numpy(split.array("null")[ids]).to(device)[:, None]
    null_scores = (start_logits.gather(1, null) + end_logits.gather(1, null))[:, 0]
    columns = zip(
        ids.tolist(),
        split.array("row")[ids].tolist(),
        null_scores.tolist(),
        _character_spans(best, split, ids),
        strict=True,
    )
    return [
        {"window": window, "row": row, "null_score": null_score, "spans": spans}
        for window, row, null_score, spans in columns
    ]


def _character_spans(
    best: BestSpans, split: PreparedSplit, ids: np.ndarray
) -> list[list[tuple[Span, float]]]:
    """Returns the best spans of each window `ids`, in characters of the context, with their
    scores."""
    starts, ends = split.ragged("token_starts"), split.ragged("token_ends")
    # Token position -> index in token_starts; missing spans point anywhere and are dropped.
    shift = (starts.offsets[ids] - split.array("context_start")[ids])[:, None]
    exists, scores = best.scores.isfinite().numpy(), best.scores.numpy()
    begins = starts.values[np.where(exists, best.starts.numpy() + shift, 0)]
    stops = ends.values[np.where(exists, best.ends.numpy() + shift, 0)]
    spans: list[list[tuple[Span, float]]] = []
    for window, kept in enumerate(exists):
        characters = zip(begins[window, kept].tolist(), stops[window, kept].tolist(), strict=True)
        spans.append(list(zip(characters, scores[window, kept].tolist(), strict=True)))
    return spans


def question_answers(
    records: list[Record], rows: "Dataset", columns: dict[str, str], num_best: int
) -> list[Record]:
    """Returns the answer to each question, in the order of the rows, from all its windows.

    `records` are those of `window_records`, and `columns` maps id, question, context and answers to
    their columns. `prediction` is the best text, even if "no answer" is more likely; `probability`
    and `no_answer_probability` are those of its span and of "no answer" among the best spans.
    """
    windows: dict[int, list[Record]] = {}
    for record in sorted(records, key=lambda record: record["window"]):
        windows.setdefault(record["row"], []).append(record)
    indices = sorted(windows)
    answers: list[Record] = []
    asked: Any = rows.select(indices).select_columns(list(columns.values()))
    articles = first_of_article(rows, indices, columns["context"])
    for index, group, values in zip(indices, articles, asked, strict=True):
        row: dict[str, Any] = {key: values[name] for key, name in columns.items()}
        spans = merge((window["spans"] for window in windows[index]), num_best)
        texts = [row["context"][begin:end].strip() for begin, end in spans]
        # As in BERT's official script, the window that is least sure of "no answer" counts.
        null_score = min(window["null_score"] for window in windows[index])
        of_none, *of_spans = answer_probabilities(null_score, spans.values())
        pairs = zip(texts, of_spans, strict=True)
        prediction, probability = next((pair for pair in pairs if pair[0]), ("", of_none))
        answers.append(
            {
                "id": str(row["id"]),
                "row": index,
                "group": group,
                "question": row["question"],
                "prediction": prediction,
                "probability": probability,
                "no_answer_probability": of_none,
                "answers": answer_texts(row["answers"]),
            }
        )
    return answers
