"""Judgement: an answer held against what is right, in the form that every task's report shows."""

from dataclasses import dataclass, field


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
