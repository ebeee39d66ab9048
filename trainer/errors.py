"""Errors that a user can mend: each is one sentence that says how, and ends a command with code 2.

TrainerError
├── ConfigError        a recipe, an override or a command line that cannot be right
├── DataError          rows, columns or splits that cannot be used
├── LaunchError        the processes that started are not the ones that were promised
├── RunDirectoryError  the run directory is in use, or belongs to another run
├── CheckpointError    a checkpoint cannot be written, found, verified or continued
└── DivergedError      the loss or the gradient is no finite number any more
"""

DONE, WRONG, STOPPED, INTERRUPTED = 0, 2, 85, 130
"""Exit codes: all done, something to mend, stopped by a signal and to be resumed, Ctrl-C."""


class TrainerError(Exception):
    """Base of every error whose message tells a user what to mend."""


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


class DivergedError(TrainerError):
    """The loss or the gradient stopped being a finite number."""


class Stopped(BaseException):
    """The run was asked to stop, and ends with `code`; like Ctrl-C it is no error."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
