"""Finding: something about this machine or a recipe that was looked at, and what to do about it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from trainer.errors import TrainerError
from trainer.wording import LONGEST_MESSAGE, excerpt, kind_and_reason

Level = Literal["fine", "note", "warning", "failure"]


@dataclass(frozen=True)
class Finding:
    """What was found about one thing."""

    code: str
    """Short name that stays the same when the message changes, such as "no-compiler"."""
    level: Level
    """`fine`: as it should be; `note`: worth knowing; `warning`: may go wrong or be slow;
    `failure`: a run will fail."""
    message: str
    """What was found, one sentence without its full stop."""
    advice: str | None = None
    """What to do about it, in the imperative; None if nothing has to be done."""
    figures: dict[str, Any] = field(default_factory=dict[str, Any])
    """The numbers and names of the message."""

    def as_dict(self) -> dict[str, Any]:
        """Returns it as JSON holds it."""
        return {**vars(self)}


def failure(code: str, error: TrainerError, level: Level = "failure") -> Finding:
    """Returns the finding that a run would end with this error."""
    key = {} if error.key is None else {"key": error.key}
    return Finding(code, level, excerpt(error.message, LONGEST_MESSAGE), error.hint, key)


def guarded(about: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """Yields the findings on a subject; an error becomes the last one."""
    try:
        yield from about()
    except TrainerError as error:
        yield failure("will-fail", error)
    except Exception as error:  # whatever is broken here must not hide what else is
        why = kind_and_reason(error)
        yield Finding("not-examined", "warning", f"could not be examined: {why}")
