"""User-fixable errors: the message says how to fix the problem, and a command exits with code 2.

TrainerError
├── ConfigError        a recipe, an override or a command line is invalid
├── DataError          rows, columns or splits cannot be used
├── LaunchError        the launched processes do not match the launch settings
├── RunDirectoryError  the run directory is in use or belongs to another run
├── CheckpointError    a checkpoint cannot be written, found, verified or resumed
├── FileError          the system refuses to read or write a file or folder
├── HubError           the hub refuses what is sent to it, or cannot be reached
├── OutOfMemoryError   the run does not fit into the memory of the machine or its GPU
└── DivergedError      the loss or the gradient is not finite any more
"""

from collections.abc import Iterator
from typing import Self

from trainer.wording import LONGEST_MESSAGE, excerpt

DONE, WRONG, UNMET, STOPPED, INTERRUPTED = 0, 2, 3, 85, 130
"""Exit codes: done, an error to fix, a requirement on runs that does not hold, stopped by a signal
and resumable, Ctrl-C."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its chain of causes, explicit (`raise ... from`) or else implicit.

    The implicit cause of a TrainerError is not followed.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        implicit = None if isinstance(current, TrainerError) else current.__context__
        current = current.__cause__ or implicit


class TrainerError(Exception):
    """Base of all errors that a user can fix.

    `str(error)` is the message, followed by the hint if there is one, and is cut after
    LONGEST_MESSAGE characters. Programs read the attributes instead of the text.
    """

    def __init__(
        self,
        message: str = "",
        *,
        key: str | None = None,
        value: object = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(excerpt(f"{message}; {hint}" if hint else message, LONGEST_MESSAGE))
        self.message = message
        """What is wrong, without the hint."""
        self.key = key
        """What is wrong: a dotted recipe key, a command-line option, a column, an environment
        variable or a file name."""
        self.value = value
        """The value that `key` has, or the part of what it names that is wrong."""
        self.hint = hint
        """How to fix it: the part of the message after the last semicolon."""

    def under(self, key: str) -> Self:
        """Returns this error as one about `key`, which is put before the message.

        Its `value` is what the error was about before, such as the file that a recipe names.
        """
        value = self.value if self.key is None else self.key
        return type(self)(f"{key}: {self.message}", key=key, value=value, hint=self.hint)

    def after(self, prefix: str) -> Self:
        """Returns this error with `prefix`, which says where it occurred, before the message."""
        message = f"{prefix}{self.message}"
        return type(self)(message, key=self.key, value=self.value, hint=self.hint)


class ConfigError(TrainerError):
    """A recipe, an override or a command line is invalid."""

    problems: tuple["ConfigError", ...] = ()
    """Each problem of a recipe; key, value and hint of the error itself are those of the first."""


class DataError(TrainerError):
    """Rows, columns or splits cannot be used as the recipe asks."""


class LaunchError(TrainerError):
    """The launched processes do not match the launch settings."""


class RunDirectoryError(TrainerError):
    """The run directory is in use or belongs to another run."""


class CheckpointError(TrainerError):
    """A checkpoint cannot be written, found, verified or resumed."""


class FileError(TrainerError):
    """The system refuses to read or write a file or folder; `value` is its error number."""


class HubError(TrainerError):
    """The hub refuses what is sent to it, or cannot be reached; `value` is the HTTP status, if it
    answered."""


class OutOfMemoryError(TrainerError):
    """The run does not fit into the memory of the machine or its GPU."""


class DivergedError(TrainerError):
    """The loss or the gradient is not finite any more."""


class Stopped(BaseException):
    """The run was asked to stop and ends with exit code `code`; like Ctrl-C it is not an error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
