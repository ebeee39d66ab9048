"""Judged answers: the lines of a file in predictions/ held against what is right."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import RunDirectoryError
from trainer.tasks.judgement import Judgement

if TYPE_CHECKING:
    from trainer.tasks.base import Task

CHURN = {
    (False, True): "fixed",
    (True, False): "broken",
    (False, False): "still wrong",
    (True, True): "still right",
}
"""What training did to an answer, by whether it was right before and is right after."""


def judged(
    task: "type[Task]", answers: Sequence[dict[str, Any]], metrics: Mapping[str, Any], file: Path
) -> list[Judgement]:
    """Returns the judgement of each answer; empty if the task has no right answers.

    `metrics` were measured with the answers. Raises RunDirectoryError, which names the `file` that
    they were read from, if one of them lacks what the task writes.
    """
    judgements: list[Judgement] = []
    for number, answer in enumerate(answers, start=1):
        try:
            judgement = task.judge(answer, metrics)
            sound = judgement is None or _is_sound(judgement)
            hash(answer["id"])  # by which answers before and after training are paired
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise _wrong(file, number) from error
        if not sound:
            raise _wrong(file, number)
        if judgement is None:
            return []
        judgements.append(judgement)
    return judgements


def _is_sound(judgement: Judgement) -> bool:
    """Returns whether a judgement has the types it declares, whatever the file holds."""
    texts: tuple[Any, ...] = (judgement.gold, judgement.predicted, *judgement.facets.values())
    confidence: Any = judgement.confidence
    return all(isinstance(text, str) for text in texts) and isinstance(confidence, float | None)


def _wrong(file: Path, number: int) -> RunDirectoryError:
    return RunDirectoryError(
        f"{file}, line {number}: not an answer as a run writes it",
        key=str(file),
        value=number,
        hint="restore the file, or remove it to report without it",
    )
