"""What asks a run to stop: a signal, a time limit, the end of its launcher, or another rank.

While it trains, a run stops at the next step boundary, with a checkpoint that all ranks write.
Before the first step and after the last there is nothing to save, so it ends at once.
"""

import os
import re
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from enum import Enum, IntEnum, auto
from typing import TYPE_CHECKING

from trainer.distributed.environment_variables import (
    is_main,
    launched_by_accelerate,
    num_ranks,
    shown,
)
from trainer.errors import DONE, INTERRUPTED, STOPPED, ConfigError, LaunchError
from trainer.process import signals
from trainer.process.exit import end_now

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

SAME_SECONDS = 2.0
"""A launcher passes on a signal that ranks received themselves: within this time it is the same."""
POLL_SECONDS = 0.5
MARGIN_SECONDS = 10.0
"""Part of a time limit that is kept for processes to exit."""
PARENT = os.getppid()
"""The launcher, unless it died while Python started."""


class Phase(Enum):
    """What a run is doing, which decides when it may stop."""

    STARTING = auto()
    """Before the first step: there is nothing to save."""
    TRAINING = auto()
    """It stops at step boundaries."""
    FINISHING = auto()
    """After the last step: there is nothing more to save."""
    ENDING = auto()
    """It is shutting down, and its exit code is decided."""


class Urgency(IntEnum):
    """How soon a run has to stop."""

    NONE = auto()
    AT_BOUNDARY = auto()
    """At the next step boundary, with a checkpoint."""
    NOW = auto()
    """Without the other ranks and without saving: a second signal arrived, or a rank has left."""
    DESPITE_SHUTDOWN = auto()
    """A second signal arrived while the run was shutting down, which may hang."""


class StopRequest:
    """Whether a run has been asked to stop, why, and how soon."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING
        self.urgency = Urgency.NONE
        self.reason: str | None = None
        """The first reason: the name of a signal, or a phrase."""
        self.code = STOPPED
        """The exit code of a run that stops."""
        self.end: float | None = None
        """The time limit, in seconds since the epoch."""
        self._reserve = 0.0
        self._longest_step = 0.0
        self._first_signal: float | None = None
        self._store: Store | None = None

    @property
    def requested(self) -> bool:
        """Whether the run has been asked to stop, or its time is up."""
        if self.end is not None and time.time() > self.end - self._reserve - MARGIN_SECONDS:
            self.ask("the time limit")
        return self.urgency > Urgency.NONE

    @property
    def leaving(self) -> bool:
        """Whether the process has to end without waiting for a step boundary."""
        if self.phase is Phase.ENDING:
            return False
        return self.alone or (self.requested and self.phase is not Phase.TRAINING)

    @property
    def alone(self) -> bool:
        """Whether ranks leave without each other, so that nothing can be saved."""
        return self.urgency >= Urgency.NOW

    def ask(self, reason: str) -> None:
        """Asks the run to stop. The first reason is kept; a second signal makes it urgent.

        The exit code of a run that is done does not change.
        """
        if self.reason is None:
            self.reason = reason
            if reason == signal.SIGINT.name and self.code != DONE:
                self.code = INTERRUPTED
        self._raise_to(Urgency.AT_BOUNDARY)
        if reason not in signal.Signals.__members__:
            return
        now = time.monotonic()
        if self._first_signal is None:
            self._first_signal = now
        elif now - self._first_signal > SAME_SECONDS:
            ending = self.phase is Phase.ENDING
            self._raise_to(Urgency.DESPITE_SHUTDOWN if ending else Urgency.NOW)

    def reserve_time(self, save: float, *, step: float) -> None:
        """Stops early enough before the time limit for one more step and a save, in seconds."""
        self._longest_step = max(self._longest_step, step)
        self._reserve = save + self._longest_step

    def share(self, store: "Store") -> None:
        """Uses the store through which the ranks met to tell and learn that a rank leaves."""
        self._store = store

    def tell_peers(self) -> None:
        """Tells the other ranks that this one leaves."""
        with suppress(RuntimeError):  # the rank that serves the store may have left
            if self._store is not None:
                self._store.set("left", "")

    def poll_peers(self) -> None:
        """Checks whether another rank has left. Blocks if the network does not answer."""
        try:
            if self._store is not None and self._store.check(["left"]):
                self.ask("another rank was asked to stop")
                self._raise_to(Urgency.NOW)
        except RuntimeError:
            self._store = None  # its server has left; torch would warn at each attempt

    @contextmanager
    def at_boundaries(self) -> Generator[None]:
        """Context manager of the training loop, which reads `requested` at step boundaries and
        stops there by itself."""
        self.phase = Phase.TRAINING
        yield
        if self.phase is Phase.TRAINING:
            self.phase = Phase.FINISHING

    def print_hint(self) -> None:
        """Prints what a first Ctrl-C does, if the run will save before it stops."""
        if self.phase is Phase.TRAINING and self.reason is None and is_main():
            with suppress(OSError):
                os.write(2, b"\nsaving at the end of this step; Ctrl-C again ends at once\n")

    def begin_shutdown(self) -> None:
        """From now on only a second signal is acted on: the run is shutting down."""
        self.phase = Phase.ENDING

    def _raise_to(self, urgency: Urgency) -> None:
        self.urgency = max(self.urgency, urgency)


@contextmanager
def listen(stop: StopRequest, give_up: Callable[[], None]) -> Generator[None]:
    """Context manager: passes signals, the end of the launcher and peers that leave to `stop`.

    A thread does, because Python runs signal handlers in the main thread, which may be in a
    collective. When there is nothing to wait for, that thread calls `give_up`, which ends the
    process: an exception raised inside a library would be lost there, or become another one.
    """
    wakeup_read, wakeup_write = socket.socketpair()
    wakeup_read.setblocking(False)
    wakeup_write.setblocking(False)
    ended = threading.Event()
    watcher = threading.Thread(target=_watch, args=(stop, wakeup_read, ended, give_up), daemon=True)
    poller = threading.Thread(target=_poll_peers, args=(stop, ended), daemon=True)

    def wake(number: int) -> None:
        with suppress(OSError):  # the socket is full of signals, or closed
            wakeup_write.send(bytes([number]))

    with wakeup_read, wakeup_write, signals.taken_over(wake):
        watcher.start()
        poller.start()
        try:
            yield
        finally:
            stop.begin_shutdown()
            ended.set()
            wake(0)
            watcher.join()


def end_of_time(duration: str | None) -> float | None:
    """Returns when a run has to have ended, in seconds since the epoch, or None without a limit.

    `duration` is such as 90s, 45m, 2h or 1:30:00. If SLURM_JOB_END_TIME is set and earlier, it
    counts. Raises ConfigError or LaunchError for a text that is not a time.
    """
    ends: list[float] = []
    if duration is not None:
        units = re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]+)?)([smh])", duration)
        clock = re.fullmatch(r"([0-9]{1,9}):([0-5][0-9]):([0-5][0-9])", duration)
        if units:
            seconds = float(units[1]) * {"s": 1, "m": 60, "h": 3600}[units[2]]
        elif clock:
            seconds = int(clock[1]) * 3600 + int(clock[2]) * 60 + int(clock[3])
        else:
            raise ConfigError(
                f"--time-limit {shown(duration)} is not a duration",
                key="--time-limit",
                value=duration,
                hint="write it like 90s, 45m, 2h or 1:30:00",
            )
        ends.append(time.time() + seconds)
    end = os.environ.get("SLURM_JOB_END_TIME")
    if end is not None:
        if not re.fullmatch("[0-9]{1,15}", end):
            raise LaunchError(
                f"SLURM_JOB_END_TIME={shown(end)} is not a number of seconds since the epoch",
                key="SLURM_JOB_END_TIME",
                value=end,
                hint="unset it",
            )
        ends.append(float(end))
    return min(ends, default=None)


def _watch(
    stop: StopRequest,
    wakeup_read: socket.socket,
    ended: threading.Event,
    give_up: Callable[[], None],
) -> None:
    has_launcher = launched_by_accelerate()
    while not ended.is_set():
        readable, _, _ = select.select([wakeup_read], [], [], POLL_SECONDS)
        for number in wakeup_read.recv(64) if readable else b"":
            if number in signals.STOPPING:
                if number == signal.SIGINT:
                    stop.print_hint()
                stop.ask(signal.Signals(number).name)
        if has_launcher and os.getppid() != PARENT:
            stop.ask("its launcher is gone")
        if stop.urgency is Urgency.DESPITE_SHUTDOWN:
            end_now(stop.code)
        if stop.leaving:
            if num_ranks() > 1:
                # This process may serve the store: give the others time to look.
                threading.Thread(target=stop.tell_peers, daemon=True).start()
                time.sleep(2 * POLL_SECONDS)
            give_up()
            stop.begin_shutdown()  # too late: the process is ending by itself


def _poll_peers(stop: StopRequest, ended: threading.Event) -> None:
    """Polls the store in its own thread, so that a hung store cannot block signal handling."""
    while not ended.wait(POLL_SECONDS):
        stop.poll_peers()
