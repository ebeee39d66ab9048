"""User-fixable errors: the message says how to fix what is wrong, and a command exits with 2.

TrainerError
├── ConfigError        a recipe, an override or a command line that cannot be right
├── DataError          rows, columns or splits that cannot be used
├── LaunchError        the processes that started are not the ones that were promised
├── RunDirectoryError  the run directory is in use, or belongs to another run
├── CheckpointError    a checkpoint cannot be written, found, verified or continued
├── FileError          a file or folder that the system does not let be written or read
├── OutOfMemoryError   the memory of the machine or of its GPU does not hold what a run needs
└── DivergedError      the loss or the gradient is no finite number any more
"""

from collections.abc import Iterator

from trainer.wording import LONGEST_MESSAGE, excerpt

DONE, WRONG, STOPPED, INTERRUPTED = 0, 2, 85, 130
"""Exit codes: all done, something to mend, stopped by a signal and to be resumed, Ctrl-C."""


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an error, what it was raised from, or else in, and so on; a TrainerError has only the
    cause that it names."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        implicit = None if isinstance(following, TrainerError) else following.__context__
        following = following.__cause__ or implicit


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
        self.key = key
        """What is wrong: a dotted recipe key, a command-line option, a column, an environment
        variable or a file name."""
        self.value = value
        """The value that `key` has."""
        self.hint = hint
        """How to fix it: the part of the message after the last semicolon."""


class ConfigError(TrainerError):
    """A recipe, an override or a command line cannot be right."""

    problems: tuple["ConfigError", ...] = ()
    """Each problem of a recipe; key, value and hint of the error itself are those of the first."""


class DataError(TrainerError):
    """Rows, columns or splits cannot be used as the recipe asks."""


class LaunchError(TrainerError):
    """The processes that started are not the ones that the launch promised."""


class RunDirectoryError(TrainerError):
    """The run directory is in use, or belongs to another run."""


class CheckpointError(TrainerError):
    """A checkpoint cannot be written, found, verified or continued from."""


class FileError(TrainerError):
    """The system does not let a file or a folder be written or read."""


class OutOfMemoryError(TrainerError):
    """The memory of the machine or of its GPU does not hold what is needed."""


class DivergedError(TrainerError):
    """The loss or the gradient stopped being a finite number."""


class Stopped(BaseException):
    """The run was asked to stop, and ends with `code`; like Ctrl-C it is no error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
