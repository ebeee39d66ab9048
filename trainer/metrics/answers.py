"""All scores of extracted answers: SQuAD's, with a threshold for "no answer", and those of text."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.metrics.generation import TEXT_SCORES, generation_scores
from trainer.metrics.squad import SquadRecord, squad_scores

BESIDE_SQUAD = tuple(name for name in TEXT_SCORES if name != "exact_match")
"""SQuAD has a match of its own."""
AT_THRESHOLD = ("exact", "f1", "HasAns_exact", "HasAns_f1", "NoAns_exact", "NoAns_f1")
METRICS = (
    *("exact", "f1", "best_exact", "best_f1", "HasAns_exact", "HasAns_f1"),
    *("exact_at_threshold", "f1_at_threshold"),
    *BESIDE_SQUAD,
    *("start_accuracy", "end_accuracy"),
)
"""Names of scores of which more is better."""
SCALES = {
    **dict.fromkeys((*METRICS, "NoAns_exact", "NoAns_f1", "never_answer"), "0-100"),
    **dict.fromkeys((f"{name}_at_threshold" for name in AT_THRESHOLD), "0-100"),
    **dict.fromkeys(("null_threshold", "best_exact_thresh", "best_f1_thresh"), "0-1"),
}


def answer_metrics(
    answers: Sequence[Mapping[str, Any]], null_threshold: float | None = None
) -> dict[str, Any]:
    """Returns the scores, 0 to 100, of answers, and of those left when unsure ones are refused.

    Each answer has `id`, `prediction`, `no_answer_probability` and `answers`, the gold texts. The
    names of SQuAD mean what they do in the official scripts with their defaults, where every
    question is answered; so do the scores of texts, over the questions with an answer. Those
    `_at_threshold` refuse what is likelier than `null_threshold` to have no answer. Where none is
    given, it is that of the best F1 on these very answers, 1.0 if all questions have answers.

    `never_answer` is `exact` where nothing is ever answered. `length_ratio` compares the words of
    predictions with those of gold answers.
    """
    records = [
        SquadRecord(
            id=one["id"],
            gold_answers=one["answers"],
            prediction_text=one["prediction"],
            no_answer_probability=one["no_answer_probability"],
        )
        for one in answers
    ]
    answerable = [one for one in records if one.gold_answers]
    plain = squad_scores(records)
    if null_threshold is None:
        all_have_one = len(answerable) == len(records)
        null_threshold = 1.0 if all_have_one else float(plain["best_f1_thresh"])
    texts = generation_scores(
        [one.prediction_text for one in answerable], [one.gold_answers for one in answerable]
    )
    left = squad_scores(records, null_threshold)
    ratio = _length_ratio(answerable)
    return {
        **plain,
        **{f"{name}_at_threshold": left[name] for name in AT_THRESHOLD if name in left},
        "null_threshold": null_threshold,
        "never_answer": 100 * (1 - len(answerable) / len(records)),
        **{name: texts[name] for name in (*BESIDE_SQUAD, "meteor_matching") if name in texts},
        **({} if ratio is None else {"length_ratio": ratio}),
    }


def _length_ratio(answerable: Sequence[SquadRecord]) -> float | None:
    """Returns the mean words of predictions over those of the gold answers, None without any."""
    answered = [one for one in answerable if one.prediction_text]
    predicted = sum(len(one.prediction_text.split()) for one in answered)
    gold = sum(
        sum(len(text.split()) for text in one.gold_answers) / len(one.gold_answers)
        for one in answered
    )
    return predicted / gold if gold else None
