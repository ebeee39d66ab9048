"""Scores of question answering as SQuAD's official scripts define them, offline."""

import math
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainer.errors import DataError

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True, slots=True)
class SquadRecord:
    """A question with its predicted answer; it is unanswerable if `gold_answers` is empty.

    `no_answer_probability` may be any number that grows with the confidence that there is no
    answer, such as a difference of logits, if `no_answer_threshold` is on the same scale.
    """

    id: str
    gold_answers: Sequence[str]
    prediction_text: str
    no_answer_probability: float = 0.0


def squad_scores(
    records: Sequence[SquadRecord], no_answer_threshold: float = 1.0
) -> dict[str, float]:
    """Returns exact match and F1, 0 to 100, as SQuAD's official scripts define them.

    `exact`, `f1` and `total` cover all questions, `HasAns_...` those with gold answers and
    `NoAns_...` those without, if there are any. A question whose `no_answer_probability` is
    greater than `no_answer_threshold` counts as answered with "". `best_exact` and `best_f1` are
    the highest values that any threshold gives; `best_exact_thresh` and `best_f1_thresh` are the
    lowest thresholds that give them: the probability of the last accepted answer, or 0.0 if none
    is accepted. As in the official script, questions of equal probability are accepted one by
    one, in the order of `records`, so a best value may need a cut inside a tie.

    Source: evaluate-v2.0.py of https://rajpurkar.github.io/SQuAD-explorer (Rajpurkar, Jia and
    Liang 2018, "Know What You Don't Know"). If every question has gold answers, each with a word
    left after normalisation, and no probability is above the threshold, `exact` and `f1` are
    `exact_match` and `f1` of evaluate-v1.1.py (Rajpurkar et al. 2016).

    Returns an empty dict if there are no records. Raises DataError if two records have the same id
    or a probability is NaN.
    """
    refuse_repeated("prediction", (record.id for record in records))
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


def scores_of_text(gold_answers: Sequence[str], text: str) -> tuple[float, float]:
    """Returns exact match and F1, 0 to 1, of one text if it is accepted as the answer."""
    predicted = _tokens(text)
    golds = [tokens for tokens in map(_tokens, dict.fromkeys(gold_answers)) if tokens] or [[]]
    if predicted in golds:
        return 1.0, 1.0
    return 0.0, max(_f1(gold, predicted) for gold in golds)


@dataclass(frozen=True, slots=True)
class _Question:
    """A question and the scores of its predicted text if it is accepted as the answer."""

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
            f"the no_answer_probability of {record.id!r} is NaN",
            key="no_answer_probability",
            value=record.no_answer_probability,
            hint="give a number that can be compared with a threshold",
        )
    exact, f1 = scores_of_text(record.gold_answers, record.prediction_text)
    return _Question(
        has_answer=len(record.gold_answers) > 0,
        has_prediction=record.prediction_text != "",
        no_answer_probability=record.no_answer_probability,
        accepted={"exact": exact, "f1": f1},
    )


def _tokens(text: str) -> list[str]:
    """Returns the lower-cased words of a text, without ASCII punctuation and English articles."""
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

    Starts with every answer rejected and accepts them one by one, the most confident first. On an
    unanswerable question any predicted text loses the point, even if it is only punctuation and
    articles.
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


def refuse_repeated(what: str, ids: Iterable[str]) -> None:
    """Raises DataError if an id occurs twice; `what` says what the ids belong to."""
    for repeated in (identity for identity, count in Counter(ids).items() if count > 1):
        raise DataError(
            f"{what} {repeated!r} occurs more than once",
            key="id",
            value=repeated,
            hint="keep one for each id",
        )
