"""Errors that a user can mend: each is one sentence that says how, and ends a command with code 2.

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

from collections.abc import Iterable, Iterator

DONE, WRONG, STOPPED, INTERRUPTED = 0, 2, 85, 130
"""Exit codes: all done, something to mend, stopped by a signal and to be resumed, Ctrl-C."""


LONGEST_MESSAGE = 500
"""Characters of the longest message: what comes from data or libraries can be megabytes long."""


def excerpt(value: object, most: int = 80) -> str:
    """Returns `value` as text of at most `most` characters; of a longer one the rest is counted."""
    text = str(value)
    if len(text) <= most:
        return text
    tail = f"… ({len(text):,} characters)"
    return text[: most - len(tail)] + tail


def listed(values: Iterable[object], most: int = 8) -> str:
    """Returns the first `most` values with commas between them, each an excerpt, and how many more
    there are."""
    shown = [excerpt(value, 60) for value in values]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def together(origin: str, problems: Iterable[str]) -> str:
    """Returns one message of as many different problems as it has room for, a line each, and how
    many more there are."""
    message, found = f"{excerpt(origin, 100)}: " if origin else "", list(dict.fromkeys(problems))
    for position, problem in enumerate(found):
        line = "\n  " * (position > 0) + excerpt(problem, LONGEST_MESSAGE // 2)
        rest = f"\n  and {len(found) - position:,} more problems"
        if len(message) + len(line) + len(rest) > LONGEST_MESSAGE:
            return message + rest
        message += line
    return message


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
    """Base of every error whose message tells a user what to mend.

    A message of more than LONGEST_MESSAGE characters is cut, whatever went into it.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(excerpt(message, LONGEST_MESSAGE))


class ConfigError(TrainerError):
    """A recipe, an override or a command line cannot be right."""


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
