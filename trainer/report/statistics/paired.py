"""Paired tests: whether two systems differ on the same examples by more than chance."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from trainer.metrics.scores import Scores
from trainer.report.recorded import Answers
from trainer.report.statistics.bootstrap import ROUNDING, Resampled, p_value, percentiles, resample
from trainer.report.statistics.closed_forms import (
    Discordant,
    detectable_between_pairs,
    detectable_from_error,
    difference_interval,
    mcnemar,
)

KEYS = ("row", "id")
"""Fields that tell which example a record is about, the surest first."""
TARGETS = ("label", "answers", "reference")
"""Fields that hold what is right; records of the same example agree in them."""
MOST_TEXTS = 5000
"""Texts up to which sacrebleu's test is run; it needs 40 kB for each, more than the bootstrap."""


def positions(answers: Answers, others: Answers) -> np.ndarray | None:
    """Returns the index among `others` of the record about the same example, for each answer.

    None if some example is missing there or has another target, or if records do not say which
    example they are about. The first of KEYS that all records have tells.
    """
    for key in KEYS:
        own, there = ([record.get(key) for record in records] for records in (answers, others))
        if not all(isinstance(value, str | int) for value in (*own, *there)):
            continue
        index = {value: number for number, value in enumerate(there)}
        if len(set(own)) < len(own) or len(index) < len(there) or not index.keys() >= set(own):
            return None
        places = [index[value] for value in own]
        pairs = zip(answers, places, strict=True)
        same = all(_agree(answer, others[place]) for answer, place in pairs)
        return np.array(places, np.int64) if same and places else None
    return None


def _agree(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    return all(first[key] == second[key] for key in TARGETS if key in first and key in second)


def paired_test(resampled: Resampled, before: int, after: int, metric: str) -> dict[str, Any]:
    """Returns how a metric differs between two systems, and whether that may be chance.

    `before` and `after` are indices of systems. Shares get McNemar's exact test, BLEU sacrebleu's
    paired bootstrap if no examples share clusters, and everything else the paired bootstrap.
    """
    first, second = resampled.systems[before], resampled.systems[after]
    subject = {"metric": metric, "num_examples": second.num_examples, "won": None, "lost": None}
    if metric in first.shares and metric in second.shares:
        pairs = discordant(first, second)
        low, high = difference_interval(pairs)
        values = {"difference": pairs.difference, "low": low, "high": high, "p": mcnemar(pairs)}
        return {
            **subject,
            **values,
            "won": pairs.won,
            "lost": pairs.lost,
            "method": "exact McNemar",
        }
    differences = resampled.values(after, metric) - resampled.values(before, metric)
    low, high = percentiles(differences) or (None, None)
    p, method = p_value(differences), "paired bootstrap"
    if metric == "bleu" and _suits_sacrebleu(first, second, resampled.systems):
        p, method = (
            bleu_p_value(first.texts or (), second.texts or ()),
            "sacrebleu paired bootstrap",
        )
    difference = second.values()[metric] - first.values()[metric]
    p = max(p, smallest_p_value(first, second, metric))
    values = {"difference": difference, "low": low, "high": high, "p": p}
    return {**subject, **values, "method": method}


def smallest_p_value(before: Scores, after: Scores, metric: str) -> float:
    """Returns the smallest two-sided p-value of a sign test on the examples, or clusters, in which
    two systems differ in a metric.

    Resamples of fewer than ten of them vary too little and would give smaller ones.
    """
    size = len(after.outcomes)
    pairs, pair_of, counts = np.unique(
        before.outcome_of * size + after.outcome_of, return_inverse=True, return_counts=True
    )
    first, second = before.outcomes[pairs // size], after.outcomes[pairs % size]
    if first.shape[1] == second.shape[1]:  # does either system's metric change with one of them?
        measure, change = before.metrics[metric], second - first
        differ = np.zeros(len(pairs), bool)
        for total, step in ((counts @ first, change), (counts @ second, -change)):
            same = np.isclose(
                measure(total + step), measure(total), rtol=0, atol=ROUNDING, equal_nan=True
            )
            differ |= ~same
    else:  # other sums, such as those without texts
        differ = before.metrics[metric](first) != after.metrics[metric](second)
    differ = differ[pair_of]
    clusters = before.clusters if after.clusters is None else after.clusters
    num_pairs = int(differ.sum()) if clusters is None else len(np.unique(clusters[differ]))
    return min(1.0, 2.0 ** (1 - num_pairs))


def detectable(resampled: Resampled, before: int, after: int, metric: str) -> float | None:
    """Returns the smallest difference in a metric that these examples show with a probability of
    80 %, from how two systems differ on them; None if it cannot be said."""
    first, second = resampled.systems[before], resampled.systems[after]
    if metric in first.shares and metric in second.shares:
        return detectable_between_pairs(discordant(first, second))
    differences = resampled.values(after, metric) - resampled.values(before, metric)
    return detectable_from_values(differences)


def detectable_from_values(values: np.ndarray) -> float | None:
    """Returns the smallest difference that is found with a probability of 80 %, from a metric or a
    difference on resamples; None if it does not vary."""
    known = values[~np.isnan(values)]
    error = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    return detectable_from_error(error) if error else None


def compare(before: Scores, after: Scores) -> Resampled | None:
    """Returns two systems on the same resamples, as the systems 0 and 1, in clusters if either
    knows them."""
    if before.clusters is None and after.clusters is not None:
        swapped = resample([after, before])
        if swapped is None:
            return None
        return Resampled(systems=swapped.systems[::-1], sums=swapped.sums[::-1])
    return resample([before, after])


def discordant(before: Scores, after: Scores) -> Discordant:
    """Returns how many examples only one of two systems answers rightly."""
    assert before.right is not None
    assert after.right is not None
    won = int((after.right & ~before.right).sum())
    lost = int((before.right & ~after.right).sum())
    return Discordant(won, lost, before.num_examples)


def bleu_p_value(
    before: Sequence[tuple[str, Sequence[str]]], after: Sequence[tuple[str, Sequence[str]]]
) -> float:
    """Returns the p-value of sacrebleu's paired bootstrap test (Koehn 2004), with its own seed.

    Pairs are predictions and references, in the same order; those without references are left out.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.significance import PairedTest

    texts = [references for _, references in before if references]
    streams = [
        [references[min(number, len(references) - 1)] for references in texts]
        for number in range(max(map(len, texts)))
    ]
    systems: list[tuple[str, Sequence[str]]] = [
        (name, [prediction for prediction, references in pairs if references])
        for name, pairs in (("before", before), ("after", after))
    ]
    with _without_variable("SACREBLEU_SEED"):
        paired: Any = PairedTest(systems, {"BLEU": BLEU()}, streams, test_type="bs")
        _, scores = paired()
    return float(scores["BLEU"][1].p_value)


@contextmanager
def _without_variable(name: str) -> Generator[None]:
    """Context manager: the environment lacks a variable, which it has again afterwards."""
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


def _suits_sacrebleu(first: Scores, second: Scores, systems: Sequence[Scores]) -> bool:
    if first.texts is None or second.texts is None:
        return False
    num_texts = sum(len(references) > 0 for _, references in first.texts)
    clustered = any(system.clusters is not None for system in systems)
    return 2 <= num_texts <= MOST_TEXTS and not clustered
