"""Examples: a sample of the answers of each kind, with their texts, for the report."""

import html
import json
import math
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from trainer.data.columns import column_name
from trainer.evaluation.evaluate import write_records
from trainer.report.answers.judged import CHURN, judged
from trainer.report.recorded import answers_file, read_answers
from trainer.run import Run
from trainer.tasks.judgement import LONGEST_SHOWN, Judgement
from trainer.tasks.reported import Record
from trainer.wording import excerpt

MOST_OF_A_KIND = 100
MOST_BYTES = 450_000
"""Bytes of the examples of a split once they are escaped as HTML."""
WITHOUT_BASELINE = {True: "right", False: "wrong"}
KINDS = (
    *("broken", "fixed", "still wrong", "still right"),
    *(*WITHOUT_BASELINE.values(), "farthest", "closest"),
)
"""The kinds of examples, in the order in which a file lists them."""
SEED = 0


def write_examples(
    run: Run, before: Mapping[str, Any], after: Mapping[str, Any], splits: Sequence[str]
) -> None:
    """Writes the examples of each split to predictions/examples-SPLIT.jsonl.

    They are chosen among the answers that the run has written for the baseline and for its exported
    step; `before` and `after` are the metrics of both by split. A line has `kind`, `id`, `row`,
    `texts` by role, `gold`, `before` (None without a baseline) and `after`, `confidence`, `score`
    and `facets`. Call it on the main process. Without answers a split has no such file.
    """
    for split in splits:
        answers, judgements = _judged(run, split, after.get(split, {}))
        pairs = zip(*_judged(run, f"baseline-{split}", before.get(split, {})), strict=True)
        by_id = {answer["id"]: judgement for answer, judgement in pairs}
        earlier = [by_id.get(answer["id"]) for answer in answers]
        chosen = sample_examples(judgements, earlier)
        texts = _texts(run, split, [answers[position] for _, position in chosen])
        lines = [
            _line(kind, answers[position], judgements[position], earlier[position], shown)
            for (kind, position), shown in zip(chosen, texts, strict=True)
        ]
        write_records(fitting(lines), answers_file(run.directory, f"examples-{split}"))


def sample_examples(
    judgements: Sequence[Judgement], before: Sequence[Judgement | None]
) -> list[tuple[str, int]]:
    """Returns the kind and the position of at most MOST_OF_A_KIND answers of each kind.

    `before` has the baseline's answer to the same example, if there is one. Of wrong answers one
    half are those with the highest confidence, in their order; the others are drawn, the same ones
    in each call. Graded answers are sorted by their score: the closest and the farthest.
    """
    graded = [position for position, one in enumerate(judgements) if one.graded]
    graded.sort(key=lambda position: -judgements[position].score)
    half = (len(graded) + 1) // 2
    of_kind: dict[str, list[int]] = {
        "closest": graded[:half][:MOST_OF_A_KIND],
        "farthest": graded[half:][::-1][:MOST_OF_A_KIND],
    }
    for position, (judgement, earlier) in enumerate(zip(judgements, before, strict=True)):
        if not judgement.graded:
            of_kind.setdefault(_kind(judgement, earlier), []).append(position)
    return [
        (kind, position)
        for kind in KINDS
        for position in _sampled(of_kind.get(kind, []), judgements)
    ]


def fitting(lines: Sequence[Record]) -> list[Record]:
    """Returns the lines, in order, without the last ones of each kind if all together have more
    than MOST_BYTES."""
    of_kind: dict[str, list[int]] = {}
    for position, line in enumerate(lines):
        of_kind.setdefault(line["kind"], []).append(position)
    kept, room = list[int](), MOST_BYTES
    for same_rank in zip_longest(*of_kind.values()):
        for position in same_rank:
            if position is None:
                continue
            text = html.escape(json.dumps(lines[position], ensure_ascii=False))
            room -= len(text.encode("utf-8", "replace"))
            if room < 0:
                return [lines[position] for position in sorted(kept)]
            kept.append(position)
    return list(lines)


def _judged(
    run: Run, name: str, metrics: Mapping[str, Any]
) -> tuple[list[Record], list[Judgement]]:
    """Returns the answers in a file in predictions/, and their judgements; both are empty if there
    is no such file or the task has no right answers."""
    file = answers_file(run.directory, name)
    answers = read_answers(file)
    judgements = judged(type(run.task), answers, metrics, file)
    return (answers, judgements) if judgements else ([], [])


def _kind(judgement: Judgement, earlier: Judgement | None) -> str:
    if earlier is None:
        return WITHOUT_BASELINE[judgement.right]
    return CHURN[earlier.right, judgement.right]


def _sampled(positions: Sequence[int], judgements: Sequence[Judgement]) -> list[int]:
    """Returns at most MOST_OF_A_KIND positions, of answers that are all right or all wrong."""
    if not positions or judgements[positions[0]].graded:
        return list(positions)
    first: list[int] = []
    if not judgements[positions[0]].right:
        ranked = sorted(positions, key=lambda position: -(judgements[position].confidence or 0.0))
        first = ranked[: MOST_OF_A_KIND // 2]
    taken = set(first)
    rest = np.array([position for position in positions if position not in taken], int)
    room = MOST_OF_A_KIND - len(first)
    if len(rest) > room:
        rest = np.sort(np.random.default_rng(SEED).choice(rest, room, replace=False))
    return [*first, *rest.tolist()]


def _texts(run: Run, split: str, answers: Sequence[Record]) -> list[dict[str, str]]:
    """Returns the texts of each answer's example, by role."""
    rows = run.splits[split].rows
    columns = {
        key.rpartition(".")[2]: column_name(column)
        for key, column in run.task.columns(run.recipe).items()
        if column is not None and column_name(column) in rows.column_names
    }
    read = rows.select_columns(list(dict.fromkeys(columns.values())))
    texts: list[dict[str, str]] = []
    for answer in answers:
        values = read[answer["row"]] if columns and "row" in answer else {}
        row = {role: values[name] for role, name in columns.items() if name in values}
        texts.append(run.task.shown_texts(answer, row))
    return texts


def _line(
    kind: str,
    answer: Record,
    judgement: Judgement,
    earlier: Judgement | None,
    texts: Mapping[str, str],
) -> Record:
    sure = judgement.confidence is not None and math.isfinite(judgement.confidence)
    return {
        "kind": kind,
        "id": answer["id"],
        "row": answer.get("row"),
        "texts": dict(texts),
        "gold": excerpt(judgement.gold, LONGEST_SHOWN),
        "before": None if earlier is None else excerpt(earlier.predicted, LONGEST_SHOWN),
        "after": excerpt(judgement.predicted, LONGEST_SHOWN),
        "confidence": judgement.confidence if sure else None,
        "score": judgement.score,
        "facets": judgement.facets,
    }
