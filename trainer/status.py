"""status.json: what the last command in a run directory did, for scripts to read."""

import json
import os
import re
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from trainer.errors import (
    CheckpointError,
    LaunchError,
    RunDirectoryError,
    Stopped,
    TrainerError,
)
from trainer.preemption import StopRequest
from trainer.run_directory import claim, write_json

FULL = ("os error 28", "os error 27", "os error 122", "Errno 28", "Errno 27", "Errno 122")
"""How Python and Rust libraries spell ENOSPC, EFBIG and EDQUOT."""
GONE = (
    *("Connection closed by peer", "Connection reset by peer", "remote process exited"),
    "Connection was likely closed",
)
"""How gloo and NCCL say that another rank is no more."""
HUNG = re.compile(r"Timed out waiting (\d+)ms|timeout caused pair closure")
"""How gloo says that another rank is there and does not answer; NCCL ends the process itself."""
GRACE_SECONDS = 5
"""Time that the main process has to say itself what another rank is about to say."""


class Status:
    """Writes the status of one command: the main process does, unless only another rank fails."""

    def __init__(self, directory: Path, stop: StopRequest) -> None:
        self._directory = directory
        self._stop = stop
        self._main = os.environ.get("RANK", "0") == "0"
        self._claimed = False

    def begin(self) -> None:
        """Notes that this command has claimed the directory, and that it is running."""
        self._claimed = True
        self.write("running", None, self._newest_step(), "starting")

    def write(self, state: str, exit_code: int | None, step: int | None, message: str) -> None:
        """Writes the status: state is running, done, stopped or failed."""
        if self._main:
            write_json(
                self._directory / "status.json",
                {"state": state, "exit_code": exit_code, "step": step, "message": message},
            )

    @contextmanager
    def reported(self) -> Generator[None]:
        """Writes how a command failed before its error goes on.

        A full disk, and a rank that is gone or hangs, are a TrainerError, unless this one was asked
        to stop: then another did so first.
        """
        try:
            yield
        except TrainerError as error:
            self._ended("failed", 2, str(error))
            raise
        except Stopped as stopped:
            self._ended("stopped", stopped.code, self._how_to_go_on(str(stopped)))
            raise
        except KeyboardInterrupt:
            self._ended("failed", 130, "interrupted")
            raise
        except Exception as error:
            told = _in_a_sentence(str(error))
            if isinstance(told, LaunchError) and self._stop.reason is not None:
                stopped = Stopped(self._stop.code, f"{told}".partition(";")[0])
                self._ended("stopped", stopped.code, self._how_to_go_on(str(stopped)))
                raise stopped from error
            if told is not None:
                self._ended("failed", 2, str(told))
                raise told from error
            self._ended("failed", 1, repr(error))
            raise

    def give_up(self) -> NoReturn:
        """Ends the process where it was asked to stop, and its main thread does not come back."""
        code, reason = self._stop.code, f"asked to stop ({self._stop.reason})"
        self._ended("stopped", code, self._how_to_go_on(reason))
        os._exit(code)

    def _how_to_go_on(self, reason: str) -> str:
        newest = self._newest_step()
        resumed = "starts anew" if newest is None else f"resumes from step {newest}"
        return f"{reason}; the same command {resumed}"

    def _ended(self, state: str, code: int, message: str) -> None:
        """Writes an end, but not over a finished run, nor beside a process that is running."""
        self._stop.settle()  # a launcher is about to end this process, too
        if not self._main:
            self._speak_for_the_main_process(state, code, message)
            return
        try:
            if self._claimed:
                if read_status(self._directory).get("state") in ("failed", "stopped"):
                    return  # another rank ended first, and its message is the cause
                self.write(state, code, self._newest_step(), message)
                return
            with claim(self._directory):
                if read_status(self._directory).get("state") != "done":
                    self.write(state, code, self._newest_step(), message)
        except RunDirectoryError:
            return
        except OSError as error:
            print(f"trainer: status.json cannot be written: {error}", file=sys.stderr)

    def _speak_for_the_main_process(self, state: str, code: int, message: str) -> None:
        """Writes and prints the end of this rank where the main process has none.

        What every rank finds wrong the main process says. Of what only this one does it would know
        no more than that a rank is gone.
        """
        end = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < end:
            if read_status(self._directory).get("state") != "running":
                return
            time.sleep(0.1)
        sentence = f"rank {os.environ['RANK']}: {message}"
        status = {"state": state, "exit_code": code, "step": self._newest_step()}
        write_json(self._directory / "status.json", {**status, "message": sentence})
        print(f"trainer: {sentence}", file=sys.stderr)

    def _newest_step(self) -> int | None:
        """Returns the step that a next command would go on from."""
        names = [path.name for path in (self._directory / "checkpoints").glob("step-????????")]
        return max((int(name[5:]) for name in names if name[5:].isdigit()), default=None)


def _in_a_sentence(error: str) -> TrainerError | None:
    """Returns what an error of a library means to a user, None where it is our defect."""
    if any(spelling in error for spelling in FULL):
        return CheckpointError(f"the disk is full ({error}); free space and run the same command")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    if found := HUNG.search(error):
        from trainer.timeouts import spoken

        time = found[1] and f"for {spoken(timedelta(milliseconds=int(found[1])))}"
        return LaunchError(
            f"a rank has not answered {time or 'in time'}: it hangs, or its machine or the network "
            f"does; end what is left of it, and the same command goes on from the last checkpoint"
        )
    if any(spelling in error for spelling in GONE):
        return LaunchError(
            "another rank ended or was killed, perhaps for lack of memory; the same command goes "
            "on from the last checkpoint"
        )
    return None


def read_status(directory: Path) -> dict[str, Any]:
    """Returns the last status of a run, empty where there is none."""
    try:
        return json.loads((directory / "status.json").read_text())
    except (OSError, ValueError):
        return {}
