"""The sentence about model/ claims no more than a fresh process has found."""

from typing import Any

import pytest

from trainer.report.export_sentence import model_sentence

COMPARED = {"statistic": "largest", "difference": 2e-9}
NOT_COMPARED = {"statistic": None, "difference": None}
HELD = "model/ holds the best step"


@pytest.mark.parametrize(
    ("export", "sentence"),
    [
        (None, HELD),
        (
            {"verified": True, "failed": False, "model": COMPARED},
            f"{HELD}; a fresh process loads it and gives the measured logits (largest difference "
            f"2.0e-09 of their standard deviation)",
        ),
        (
            {"verified": True, "failed": False, "model": NOT_COMPARED},
            f"{HELD}; a fresh process loads it",
        ),
        (
            {"verified": False, "failed": False, "why_not": "it was killed"},
            f"{HELD}, not verified in a fresh process: it was killed",
        ),
        (
            {"verified": False, "failed": True, "why_not": "no head"},
            "model/ was not replaced by the best step: no head",
        ),
    ],
)
def test_the_sentence_says_what_was_verified(export: Any, sentence: str) -> None:
    assert model_sentence({"model": "best", "export": export}) == sentence
