"""A run in a child process, to which the signals that ask this process to stop are passed on."""

import os
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.errors import DONE, ConfigError, TrainerError
from trainer.files.file_lock import lock
from trainer.process.run_directory import claim
from trainer.process.signals import code_of, taken_over
from trainer.process.status import Status, read_status


@contextmanager
def collected_signals() -> Generator[list[int]]:
    """Context manager: yields a list that collects the signals that ask this process to stop.

    Under nohup, SIGHUP is not among them.
    """
    signals: list[int] = []
    with taken_over(signals.append):
        yield signals


def run_child(command: list[str], directory: Path, signals: list[int]) -> int:
    """Runs a command that trains in `directory`, waits for it to end, and returns its exit code.

    Nothing starts if `signals` is not empty; signals that arrive meanwhile are passed on. The code
    is read from status.json, because a launcher hides it. Raises ConfigError if the command cannot
    be started.
    """
    if signals:
        return code_of(signals[0])
    before, num_passed = _last_written(directory), 0
    try:
        # A separate process group: a launcher may die of a signal without passing it on to its
        # ranks, and a rank that gets the same Ctrl-C twice ends without saving.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0)
    except OSError as error:
        raise ConfigError(
            f"{command[0]} cannot be started ({error.strerror})",
            key="--launcher",
            value=command[0],
            hint="correct --launcher",
        ) from error
    while child.poll() is None:
        for number in signals[num_passed:]:
            num_passed += 1
            with suppress(ProcessLookupError):
                # Launchers pass these two signals on, and die of others.
                kind = signal.SIGINT if number == signal.SIGINT else signal.SIGTERM
                os.killpg(child.pid, kind)
        time.sleep(0.1)
    if num_passed:
        _wait_until_free(directory)
    if child.returncode == 0:
        return DONE
    # A status that an earlier command wrote does not hold this one's code.
    status = read_status(directory) if _last_written(directory) != before else {}
    code = status.get("exit_code")
    if code is not None:
        return code
    if signals:
        return code_of(signals[0])
    if child.returncode > 0:
        return child.returncode
    _note_kill(directory, -child.returncode)
    return 128 - child.returncode


def _note_kill(directory: Path, number: int) -> None:
    """Records in status.json that a run was killed, which it could not do itself."""
    if read_status(directory).get("state") != "running":
        return
    name = signal.Signals(number).name
    memory = ", most often by the system for lack of memory" * (number == signal.SIGKILL)
    with suppress(TrainerError, OSError), claim(directory):
        Status(directory).write(
            "failed",
            128 + number,
            read_status(directory).get("step"),
            f"killed by {name}{memory}; the same command resumes from the last checkpoint",
        )


def _wait_until_free(directory: Path) -> None:
    """Waits for a rank that outlives its launcher, is saving, and so holds the directory's lock."""
    with suppress(FileNotFoundError), (directory / ".lock").open("r+") as held:
        lock(held.fileno(), wait=True)


def _last_written(directory: Path) -> int:
    """Returns when status.json was last written, in nanoseconds; 0 if it does not exist."""
    try:
        return (directory / "status.json").stat().st_mtime_ns
    except FileNotFoundError:
        return 0
