"""Scores of extracted answers: SQuAD's, with a threshold for "no answer", and text scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.metrics.generation import TEXT_SCORES, generation_scores
from trainer.metrics.squad import SquadRecord, squad_scores

BESIDE_SQUAD = tuple(name for name in TEXT_SCORES if name != "exact_match")
"""Text scores reported next to SQuAD's, which has an exact match of its own."""
AT_THRESHOLD = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")
METRICS = (
    *("exact", "f1", "best_exact", "best_f1", "HasAns_exact", "HasAns_f1"),
    *("exact_at_threshold", "f1_at_threshold"),
    *BESIDE_SQUAD,
    *("start_accuracy", "end_accuracy"),
)
"""Names of the scores that are better when higher."""
SCALES = {
    **dict.fromkeys((*METRICS, "NoAns_exact", "NoAns_f1", "never_answer"), "0-100"),
    **dict.fromkeys((f"{name}_at_threshold" for name in AT_THRESHOLD), "0-100"),
    **dict.fromkeys(("null_threshold", "best_exact_thresh", "best_f1_thresh"), "0-1"),
}


def answer_metrics(
    answers: Sequence[Mapping[str, Any]], null_threshold: float | None = None
) -> dict[str, Any]:
    """Returns the scores, 0 to 100, of answers to questions.

    Each answer has `id`, `prediction`, `no_answer_probability` and `answers`, the gold texts.

    - SQuAD's names mean what they mean in the official scripts with default settings: every
      question counts as answered.
    - Names ending in `_at_threshold` count a question as unanswered if its
      `no_answer_probability` is above `null_threshold`. The default threshold is the one with the
      best F1 on these answers, or 1.0 if every question has an answer.
    - Text scores (BLEU, ROUGE, METEOR) cover the questions that have an answer.
    - `never_answer` is the `exact` of a model that answers no question. `length_ratio` is the
      number of words of the predictions divided by that of the gold answers.
    """
    records = [
        SquadRecord(
            id=answer["id"],
            gold_answers=answer["answers"],
            prediction_text=answer["prediction"],
            no_answer_probability=answer["no_answer_probability"],
        )
        for answer in answers
    ]
    answerable = [record for record in records if record.gold_answers]
    plain = squad_scores(records)
    if null_threshold is None:
        all_answerable = len(answerable) == len(records)
        null_threshold = 1.0 if all_answerable else float(plain["best_f1_thresh"])
    texts = generation_scores(
        [record.prediction_text for record in answerable],
        [record.gold_answers for record in answerable],
    )
    thresholded = squad_scores(records, null_threshold)
    ratio = _length_ratio(answerable)
    return {
        **plain,
        **{
            f"{name}_at_threshold": thresholded[name]
            for name in AT_THRESHOLD
            if name in thresholded
        },
        "null_threshold": null_threshold,
        "never_answer": 100 * (1 - len(answerable) / len(records)),
        **{name: texts[name] for name in (*BESIDE_SQUAD, "meteor_matching") if name in texts},
        **({} if ratio is None else {"length_ratio": ratio}),
    }


def _length_ratio(answerable: Sequence[SquadRecord]) -> float | None:
    """Returns words of predictions / mean words of gold answers, None without predictions."""
    answered = [record for record in answerable if record.prediction_text]
    predicted = sum(len(record.prediction_text.split()) for record in answered)
    gold = sum(
        sum(len(text.split()) for text in record.gold_answers) / len(record.gold_answers)
        for record in answered
    )
    return predicted / gold if gold else None
