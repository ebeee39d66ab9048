"""The judgement of a generated text."""

from collections.abc import Mapping
from typing import Any

from trainer.metrics.similarity import similarity
from trainer.tasks.judgement import Judgement, length_of


def judge(answer: Mapping[str, Any]) -> Judgement:
    """Returns a generated text held against its reference: right if both are equal but for white
    space at the ends, as `exact_match` counts it."""
    gold, predicted = answer["reference"].strip(), answer["prediction"].strip()
    return Judgement(
        gold=gold,
        predicted=predicted,
        right=gold == predicted,
        score=1.0 if gold == predicted else similarity(predicted, gold),
        facets={"answer length": length_of(gold)},
        graded=True,
    )
