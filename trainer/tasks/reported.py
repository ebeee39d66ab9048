"""What a report asks of a task about a run that has ended."""

from collections.abc import Mapping, Sequence
from typing import Any

from trainer.metrics.scores import Scores
from trainer.tasks.finding import Finding
from trainer.tasks.judgement import LONGEST_SHOWN, Judgement
from trainer.wording import excerpt

Record = dict[str, Any]
"""What an evaluation keeps of an example: plain JSON values."""


class Reported:
    """The part of a task that a report uses, with defaults for all of it.

    These are class methods, because a report reads the directory of a run and builds no task.
    """

    target: str | None = None
    """The key in `columns` of the column that holds the targets; None if there is no such column.
    In a test split the column may be missing or empty."""

    @classmethod
    def diagnose(cls, metrics: Mapping[str, Any]) -> list[Finding]:
        """Returns what is suspicious about the metrics of one split, without naming the split.

        The metrics may be those of an older version, or hold None and NaN.
        """
        return []

    @classmethod
    def scores(cls, answers: Sequence[Record], metrics: Mapping[str, Any]) -> Scores | None:
        """Returns what each answer adds to the metrics of its split; None if records do not say.

        `answers` are the lines of a file in predictions/, and `metrics` the metrics that were
        measured with them, which hold thresholds and the order of the classes.
        """
        return None

    @classmethod
    def scores_without_reading(
        cls, answers: Sequence[Record], metrics: Mapping[str, Any]
    ) -> tuple[str, Scores] | None:
        """Returns, in words, the best answer to give to every example unread, and its scores; None
        if there is no such answer.

        `answers` and `metrics` are those of `scores`. Without answers, the examples are those that
        `metrics` counts, in another order.
        """
        return None

    @classmethod
    def num_judged(cls, metrics: Mapping[str, Any]) -> dict[str, int]:
        """Returns the number of examples of each metric that is the share of independent examples,
        0 to 1, which are right."""
        return {}

    @classmethod
    def judge(cls, answer: Record, metrics: Mapping[str, Any]) -> Judgement | None:
        """Returns an answer, a line of a file in predictions/, held against what is right; None if
        the task has no right answers.

        `metrics` were measured with the answers of this file; thresholds are taken from them.
        """
        return None

    @classmethod
    def shown_texts(cls, answer: Record, row: Mapping[str, Any]) -> dict[str, str]:
        """Returns the texts by which a reader recognises the example of an answer, by role, each of
        at most LONGEST_SHOWN characters.

        `row` maps the roles that the task reads to the values of the answer's row; it is empty if
        the row is not known.
        """
        hidden = ("id", cls.target and cls.target.rpartition(".")[2])
        return {
            role: excerpt(value, LONGEST_SHOWN)
            for role, value in row.items()
            if role not in hidden and isinstance(value, str)
        }
