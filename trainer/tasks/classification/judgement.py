"""The judgement of a predicted label."""

from collections.abc import Mapping
from typing import Any

from trainer.tasks.judgement import Judgement


def judge(answer: Mapping[str, Any]) -> Judgement:
    """Returns a label held against the row's; a prompted model gives no confidence."""
    gold, predicted = answer["label"], answer["prediction"]
    return Judgement(
        gold=gold,
        predicted=predicted,
        right=gold == predicted,
        score=float(gold == predicted),
        confidence=answer.get("probability"),
        facets={"label": gold},
    )
