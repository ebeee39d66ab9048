"""status.json: what the last command in a run directory did, for scripts to read."""

import logging
import os
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trainer.distributed.environment_variables import is_main
from trainer.errors import LaunchError, RunDirectoryError, Stopped, TrainerError
from trainer.files.durable import write_with_reserve
from trainer.files.file_lock import lock
from trainer.files.plain import read_json
from trainer.process import signals
from trainer.process.exit import end_now
from trainer.process.library_errors import as_user_error
from trainer.process.run_directory import claim, claimed
from trainer.process.stop_request import StopRequest
from trainer.wording import LONGEST_MESSAGE, excerpt

LOG = logging.getLogger("trainer")
MAIN_FIRST_SECONDS = 5
"""How long other ranks wait for the main process to report an error before they do."""


class Status:
    """Writes the status of one command, on the main process unless only another rank fails."""

    def __init__(self, directory: Path, stop: StopRequest | None = None) -> None:
        self._directory = directory
        self._stop = stop or StopRequest()
        self._begun = False
        self._ending = threading.RLock()
        self._over = False
        """Whether the end of the command is written."""
        self._num_steps: int | None = None

    @property
    def _main(self) -> bool:
        return is_main()

    def begin(self) -> None:
        """Writes that this command runs in the directory, which it has claimed."""
        with self._ending:
            self.write("running", None, self._newest_step(), "starting")
            self._begun = True

    def begin_training(self, step: int, num_steps: int) -> None:
        """Writes that the run trains from `step` on, and of how many steps it is."""
        with self._ending:
            self._num_steps = num_steps
            self.write("running", None, step, "training")

    def write(self, state: str, exit_code: int | None, step: int | None, message: str) -> None:
        """Writes the status: state is running, done, stopped or failed."""
        with self._ending:
            if self._main:
                self._write(state, exit_code, step, message)
            self._over = state != "running"

    def _write(self, state: str, exit_code: int | None, step: int | None, message: str) -> None:
        status = {"state": state, "exit_code": exit_code, "step": step}
        if self._num_steps is not None:
            status["num_steps"] = self._num_steps
        write_with_reserve(
            self._directory / "status.json",
            {**status, "message": excerpt(message, LONGEST_MESSAGE)},
        )

    @contextmanager
    def reported(self) -> Generator[None]:
        """Context manager: writes how a command failed before its error propagates.

        Errors of libraries that say that memory or a disk is full, or that a rank died or hangs,
        become a TrainerError; or Stopped, if the ranks leave because they were asked to.
        """
        try:
            yield
        except TrainerError as error:
            self._ended("failed", 2, str(error))
            raise
        except Stopped as stopped:
            raise self._stopped(str(stopped)) from None
        except KeyboardInterrupt:
            self._ended("failed", 130, "interrupted")
            raise
        except Exception as error:
            known = as_user_error(error, self._directory)
            if isinstance(known, LaunchError) and self._stop.alone:
                raise self._stopped(str(known).partition(";")[0]) from error
            if known is not None:
                self._ended("failed", 2, str(known))
                raise known from error
            self._ended("failed", 1, repr(error))
            raise

    def give_up(self) -> None:
        """Ends the process, which was asked to stop, from any thread, unless its end is written."""
        with self._ending:  # the main thread keeps working, and must write nothing after this
            if self._over:
                return
            try:
                signals.say(str(self._stopped(f"asked to stop ({self._stop.reason})")))
            finally:
                end_now(self._stop.code)

    def _stopped(self, reason: str) -> Stopped:
        """Writes that the run was stopped, and returns the exception that says how to resume."""
        newest = self._newest_step()
        resumed = "starts again" if newest is None else f"resumes from step {newest}"
        message = f"{reason}; the same command {resumed}"
        self._ended("stopped", self._stop.code, message)
        return Stopped(self._stop.code, message)

    def _ended(self, state: str, code: int, message: str) -> None:
        """Writes the end, unless the run is finished or another process holds the directory."""
        self._stop.begin_shutdown()  # a launcher is about to end this process as well
        with self._ending:
            if self._over:
                return
            self._over = True
            if not self._main:
                self._report_for_main(state, code, message)
                return
            try:
                if not claimed(self._directory):
                    with claim(self._directory):
                        self._write_end(state, code, message)
                else:
                    self._write_end(state, code, message)
            except RunDirectoryError:
                return
            except OSError as error:
                LOG.error("status.json cannot be written: %s", error)

    def _write_end(self, state: str, code: int, message: str) -> None:
        before = read_status(self._directory).get("state")
        # Another rank of this command may have ended first, and its message is the cause.
        if before not in (("failed", "stopped") if self._begun else ("done",)):
            self._write(state, code, self._newest_step(), message)

    def _report_for_main(self, state: str, code: int, message: str) -> None:
        """Writes and prints the end of this rank if the main process writes none.

        The main process reports errors that every rank has. Of an error on this rank alone it knows
        only that the rank is gone.
        """
        end = time.monotonic() + MAIN_FIRST_SECONDS
        while time.monotonic() < end:
            if read_status(self._directory).get("state") != "running":
                return
            time.sleep(0.1)
        sentence = f"rank {os.environ.get('RANK')}: {message}"
        status = {"state": state, "exit_code": code, "step": self._newest_step()}
        try:
            with (self._directory / ".speaker").open("a") as lock_file:
                lock(lock_file.fileno(), wait=True)  # the first of several ranks reports
                if read_status(self._directory).get("state") != "running":
                    return
                write_with_reserve(
                    self._directory / "status.json",
                    {**status, "message": excerpt(sentence, LONGEST_MESSAGE)},
                )
        except OSError as error:
            sentence += f" (status.json cannot be written: {error})"
        LOG.error("%s", sentence)

    def _newest_step(self) -> int | None:
        """Returns the step that the next command would resume from."""
        names = [path.name for path in (self._directory / "checkpoints").glob("step-????????")]
        return max((int(name[5:]) for name in names if name[5:].isdecimal()), default=None)


def read_status(directory: Path) -> dict[str, Any]:
    """Returns the last status of a run, or an empty mapping if there is none."""
    try:
        status = read_json(directory / "status.json")
    except (OSError, ValueError):
        return {}
    return status if isinstance(status, dict) else {}
