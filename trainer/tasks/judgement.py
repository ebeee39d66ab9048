"""Judgement: an answer held against what is right, in the form that every task's report shows."""

from dataclasses import dataclass, field

LONGEST_SHOWN = 500
"""Maximum characters of an example's text in a report."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """An answer held against what is right."""

    gold: str
    """What is right, as text; several possible answers are joined by " | "."""
    predicted: str
    right: bool
    score: float
    """Between 0 (wrong) and 1 (right): how close the answer is."""
    confidence: float | None = None
    """The model's probability of its answer; None if it gives none."""
    facets: dict[str, str] = field(default_factory=dict[str, str])
    """Properties by which answers are counted, such as {"question word": "who"}."""
    graded: bool = False
    """Whether closeness says more than right or wrong, as of generated text."""


def length_of(text: str) -> str:
    """Returns the number of words of a text as one of five facets."""
    number = len(text.split())
    longer = {2: str(number), 5: "3 to 5", 10: "6 to 10"}
    return next((name for most, name in longer.items() if number <= most), "11 or more")
