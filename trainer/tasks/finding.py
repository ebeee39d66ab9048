"""Finding: something about a run that a reader of its numbers must know."""

from dataclasses import dataclass, field
from typing import Any, Literal

Severity = Literal["wrong", "doubtful", "note"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a run that a reader of its numbers must know."""

    code: str
    """Short name that stays the same when the message changes, such as "one-class"."""
    message: str
    """What was found, as a clause with its figures; on one line, with text from data as it is."""
    advice: str = ""
    """What to try, as an imperative sentence; empty if nothing has to be done."""
    figures: dict[str, float] = field(default_factory=dict[str, float])
    """The numbers of the message by name."""
    split: str | None = None
    """The split that it is about, such as "test", or "zero-shot test" for the answers before
    training; None if it is about the run."""
    severity: Severity = "doubtful"
    """`wrong`: a number means something else than it says; `doubtful`: it may mean less; `note`:
    worth knowing."""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as results.json holds it."""
        return {**vars(self)}

    def sentence(self) -> str:
        """Returns the message after the split that it is about."""
        return f"{self.split}: {self.message}" if self.split else self.message
