"""Scores of question answering as SQuAD's official scripts define them, offline."""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import evaluate

from trainer.errors import DataError

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class SquadRecord:
    """One question with what was answered; without `gold_answers` it is unanswerable.

    `no_answer_probability` may be any number that grows with the belief that there is no answer,
    a difference of logits as well, where `no_answer_threshold` is on the same scale.
    """

    id: str
    gold_answers: Sequence[str]
    prediction_text: str
    no_answer_probability: float = 0.0


class SquadMetrics(evaluate.Metric):
    """Exact match and F1 between 0 and 100, overall, by answerability and at the best threshold.

    Takes predictions `{"id", "prediction_text", "no_answer_probability"}` and references
    `{"id", "answers": {"text": [...], "answer_start": [...]}}`, paired by id, not by position.
    `compute(…, no_answer_threshold=1.0)` gives the dict of `squad_scores`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Exact match and F1 as SQuAD v1.1 and v2.0 define them.",
            citation="",
            features=datasets.Features(
                {
                    "predictions": {
                        "id": datasets.Value("string"),
                        "prediction_text": datasets.Value("string"),
                        "no_answer_probability": datasets.Value("float64"),
                    },
                    "references": {
                        "id": datasets.Value("string"),
                        "answers": {
                            "text": datasets.List(datasets.Value("string")),
                            "answer_start": datasets.List(datasets.Value("int32")),
                        },
                    },
                }
            ),
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        return self._scores(predictions, references, **kwargs)

    @staticmethod
    def _scores(
        predictions: Sequence[Mapping[str, Any]],
        references: Sequence[Mapping[str, Any]],
        no_answer_threshold: float = 1.0,
    ) -> dict[str, float]:
        return squad_scores(squad_records(predictions, references), no_answer_threshold)


def squad_records(
    predictions: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]
) -> list[SquadRecord]:
    """Returns one record for each prediction, in their order, with the gold answers of its id.

    Raises DataError unless predictions and references have the same ids, each of them once.
    """
    _refuse_repeated("prediction", (prediction["id"] for prediction in predictions))
    _refuse_repeated("question", (reference["id"] for reference in references))
    gold = {reference["id"]: reference["answers"]["text"] for reference in references}
    for prediction in predictions:
        if prediction["id"] not in gold:
            raise DataError(
                f"prediction {prediction['id']!r} belongs to none of the {len(gold)} questions; "
                "give it the id of its question"
            )
    answered = {prediction["id"] for prediction in predictions}
    for question in gold:
        if question not in answered:
            raise DataError(
                f'question {question!r} has no prediction; where there is no answer, predict ""'
            )
    return [
        SquadRecord(
            id=prediction["id"],
            gold_answers=gold[prediction["id"]],
            prediction_text=prediction["prediction_text"],
            no_answer_probability=prediction["no_answer_probability"],
        )
        for prediction in predictions
    ]


def squad_scores(
    records: Sequence[SquadRecord], no_answer_threshold: float = 1.0
) -> dict[str, float]:
    """Returns exact match and F1, 0 to 100, as SQuAD's official scripts define them.

    `exact`, `f1` and `total` are over all questions, `HasAns_…` over those with gold answers and
    `NoAns_…` over those without, where there are any. A question whose `no_answer_probability` is
    greater than `no_answer_threshold` counts as answered with "". `best_exact` and `best_f1` are
    the highest values that a threshold could give, `best_exact_thresh` and `best_f1_thresh` the
    lowest such thresholds: the probability of the last question whose answer is accepted, 0.0
    where none is. As in the official script, questions of equal probability are accepted one by
    one, in the order of `records`, so a best value may need a cut inside a tie.

    Source: evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer (Rajpurkar, Jia and
    Liang 2018, "Know What You Don't Know"). Where every question has gold answers, each with a
    word left after normalisation, and no probability is above the threshold, `exact` and `f1` are
    `exact_match` and `f1` of evaluate-v1.1.py (Rajpurkar et al. 2016).

    Without records there are no scores: an empty dict. Raises DataError where two records have the
    same id or a probability is NaN.
    """
    _refuse_repeated("prediction", (record.id for record in records))
    questions = [_question(record) for record in records]
    if not questions:
        return {}
    scores = _means(questions, no_answer_threshold)
    for prefix, has_answer in (("HasAns", True), ("NoAns", False)):
        part = [question for question in questions if question.has_answer is has_answer]
        if part:
            means = _means(part, no_answer_threshold)
            scores |= {f"{prefix}_{name}": value for name, value in means.items()}
    for name in ("exact", "f1"):
        scores[f"best_{name}"], scores[f"best_{name}_thresh"] = _best_threshold(questions, name)
    return scores


@dataclass(frozen=True, slots=True)
class _Question:
    """A question and what its predicted text earns where it is accepted as the answer."""

    has_answer: bool
    has_prediction: bool
    no_answer_probability: float
    accepted: dict[str, float]

    def score(self, name: str, no_answer_threshold: float) -> float:
        if self.no_answer_probability > no_answer_threshold:
            return float(not self.has_answer)
        return self.accepted[name]


def _question(record: SquadRecord) -> _Question:
    if math.isnan(record.no_answer_probability):
        raise DataError(
            f"the no_answer_probability of {record.id!r} is NaN; give a number that can be "
            "compared with a threshold"
        )
    predicted = _tokens(record.prediction_text)
    golds = [tokens for tokens in map(_tokens, record.gold_answers) if tokens] or [[]]
    return _Question(
        has_answer=len(record.gold_answers) > 0,
        has_prediction=record.prediction_text != "",
        no_answer_probability=record.no_answer_probability,
        accepted={
            "exact": float(predicted in golds),
            "f1": max(_f1(gold, predicted) for gold in golds),
        },
    )


def _tokens(text: str) -> list[str]:
    """Returns the words of a text, lower-cased, without ASCII punctuation and English articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split()


def _f1(gold: Sequence[str], predicted: Sequence[str]) -> float:
    if not gold or not predicted:
        return float(len(gold) == len(predicted))
    shared = (Counter(gold) & Counter(predicted)).total()
    if shared == 0:
        return 0.0
    precision, recall = shared / len(predicted), shared / len(gold)
    return 2 * precision * recall / (precision + recall)


def _means(questions: Sequence[_Question], no_answer_threshold: float) -> dict[str, float]:
    scores: dict[str, float] = {
        name: 100 * sum(q.score(name, no_answer_threshold) for q in questions) / len(questions)
        for name in ("exact", "f1")
    }
    return scores | {"total": len(questions)}


def _best_threshold(questions: Sequence[_Question], name: str) -> tuple[float, float]:
    """Returns the highest mean score, 0 to 100, and the probability of its last accepted answer.

    Begins with every answer refused and accepts one after the other, surest first. For an
    unanswerable question any predicted text costs its point, one of only punctuation and articles
    as well.
    """
    score: float = sum(not question.has_answer for question in questions)
    best, threshold = score, 0.0
    for question in sorted(questions, key=lambda question: question.no_answer_probability):
        if question.has_answer:
            score += question.accepted[name]
        else:
            score -= question.has_prediction
        if score > best:
            best, threshold = score, question.no_answer_probability
    return 100 * best / len(questions), threshold


def _refuse_repeated(what: str, ids: Iterable[str]) -> None:
    for repeated in (one for one, count in Counter(ids).items() if count > 1):
        raise DataError(f"{what} {repeated!r} comes more than once; keep one for each id")
