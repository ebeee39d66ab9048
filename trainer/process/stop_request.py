"""What asks a run to stop: a signal, a time limit, the end of its launcher, or another rank.

While it trains, a run stops at the next step boundary, with a checkpoint that all ranks write.
Before the first step and after the last there is nothing to save: it ends at once.
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
from types import FrameType
from typing import TYPE_CHECKING

from trainer.distributed.environment_variables import shown
from trainer.errors import (
    INTERRUPTED,
    STOPPED,
    ConfigError,
    LaunchError,
)
from trainer.process import signals
from trainer.process.signals import STOPPING

if TYPE_CHECKING:
    from torch.distributed import Store  # pyright: ignore[reportPrivateImportUsage]

SAME_SECONDS = 2.0
"""Launchers pass on a signal that ranks heard themselves: so long it is one and the same."""
POLL_SECONDS = 0.5
MARGIN_SECONDS = 10.0
"""Of a time limit, left for the end of processes."""
LAUNCHED = "ACCELERATE_MIXED_PRECISION"
"""Set in every process that `accelerate launch` starts."""
PARENT = os.getppid()
"""Its launcher, unless that died while Python started."""


class StopRequest:
    """Whether this process was asked to stop, and why."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self.code = STOPPED
        self.end: float | None = None
        """The time limit, in seconds since the epoch."""
        self.insisted = False
        """Whether a second signal came."""
        self.insisted_at_the_end = False
        """Whether it came when the run was ending already."""
        self.others_left = False
        self._reserve = 0.0
        self._longest_step = 0.0
        self._first_signal: float | None = None
        self._training = self._settled = False
        self._store: Store | None = None

    @property
    def requested(self) -> bool:
        if self.end is not None and time.time() > self.end - self._reserve - MARGIN_SECONDS:
            self.ask("the time limit")
        return self.reason is not None

    @property
    def leaving(self) -> bool:
        """Whether to end without waiting for a step boundary."""
        return not self._settled and (self.alone or (self.requested and not self._training))

    @property
    def alone(self) -> bool:
        """Whether ranks leave without each other, so that nothing can be saved."""
        return self.insisted or self.others_left

    def ask(self, reason: str) -> None:
        """Notes the first reason; a second signal after a while does not wait for a checkpoint."""
        if self.reason is None:
            self.reason = reason
            if reason == signal.SIGINT.name:
                self.code = INTERRUPTED
        if reason not in signal.Signals.__members__:
            return
        now = time.monotonic()
        if self._first_signal is None:
            self._first_signal = now
        elif now - self._first_signal > SAME_SECONDS:
            self.insisted = True
            self.insisted_at_the_end = self._settled

    def leave_time_for(self, save: float, *, step: float) -> None:
        """Stops so much earlier that one more step and a save that takes long fit; in seconds."""
        self._longest_step = max(self._longest_step, step)
        self._reserve = save + self._longest_step

    def share(self, store: "Store") -> None:
        """Lets ranks that met at `store` hear when this one leaves, and this one hear of them."""
        self._store = store

    def tell_others(self) -> None:
        """Lets the others know that this rank leaves."""
        with suppress(RuntimeError):  # the server may have left already
            if self._store is not None:
                self._store.set("left", "")

    def hear_others(self) -> None:
        """Notes whether another rank leaves; may wait long where the network does not answer."""
        try:
            if self._store is not None and self._store.check(["left"]):
                self.ask("another rank was asked to stop")
                self.others_left = True
        except RuntimeError:
            self._store = None  # its server has left; torch would warn of it each time

    @contextmanager
    def at_boundaries(self) -> Generator[None]:
        """Inside, whoever runs asks `requested` at step boundaries, and ends by itself."""
        self._training = True
        yield
        self._training = False

    def announce(self) -> None:
        """Tells who pressed Ctrl-C what comes."""
        if self._training and self.reason is None and os.environ.get("RANK", "0") == "0":
            os.write(2, b"\nsaving at the end of this step; Ctrl-C again ends at once\n")

    def settle(self) -> None:
        """Heeds from now on only who insists, for the run is ending."""
        self._settled = True


@contextmanager
def listen(stop: StopRequest, give_up: Callable[[], None]) -> Generator[None]:
    """Notes what asks to stop, also while a library computes, imports or waits.

    A thread does: signal handlers in Python wait for the main thread, which may be in a collective.
    Where there is nothing to wait for, the thread itself calls `give_up`, which is to end the
    process: an exception raised in the midst of a library is lost there, or becomes another.
    """
    ears, mouth = socket.socketpair()
    ears.setblocking(False)
    mouth.setblocking(False)
    ended = threading.Event()
    thread = threading.Thread(target=_watch, args=(stop, ears, ended, give_up), daemon=True)
    others = threading.Thread(target=_hear_others, args=(stop, ended), daemon=True)

    def hear(number: int) -> None:
        with suppress(OSError):  # which is full of signals, or closed
            mouth.send(bytes([number]))

    numbers = signals.stopping_signals()
    with signals.taken_over(hear):
        woken_before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        before = {number: signal.signal(number, _do_nothing) for number in numbers}
        thread.start()
        others.start()
        try:
            yield
        finally:
            stop.settle()
            ended.set()
            hear(0)
            thread.join()
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(woken_before)
            ears.close()
            mouth.close()


def end_of_time(duration: str | None) -> float | None:
    """Returns when a run has to have ended, in seconds since the epoch; None where no one says.

    `duration` is such as 90s, 45m, 2h or 1:30:00; SLURM_JOB_END_TIME counts, too. Raises
    ConfigError or LaunchError for what is no time.
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
                f"--time-limit {shown(duration)}: give it such as 90s, 45m, 2h or 1:30:00"
            )
        ends.append(time.time() + seconds)
    end = os.environ.get("SLURM_JOB_END_TIME")
    if end is not None:
        if not re.fullmatch("[0-9]{1,15}", end):
            raise LaunchError(
                f"SLURM_JOB_END_TIME={shown(end)} is no number of seconds since the epoch; unset it"
            )
        ends.append(float(end))
    return min(ends, default=None)


def _watch(
    stop: StopRequest, ears: socket.socket, ended: threading.Event, give_up: Callable[[], None]
) -> None:
    launched = LAUNCHED in os.environ
    while not ended.is_set():
        heard = ears.recv(64) if select.select([ears], [], [], POLL_SECONDS)[0] else b""
        for number in heard:
            if number in STOPPING:
                if number == signal.SIGINT:
                    stop.announce()
                stop.ask(signal.Signals(number).name)
        if launched and os.getppid() != PARENT:
            stop.ask("its launcher is gone")
        if stop.insisted_at_the_end:
            os._exit(stop.code)
        if stop.leaving:
            if os.environ.get("WORLD_SIZE", "1") != "1":
                # This process may serve the store: the others get time to look.
                threading.Thread(target=stop.tell_others, daemon=True).start()
                time.sleep(2 * POLL_SECONDS)
            give_up()
            stop.settle()  # it was too late: the process is ending by itself


def _hear_others(stop: StopRequest, ended: threading.Event) -> None:
    """Asks the store in a thread of its own, for it may hang, and signals be heard nevertheless."""
    while not ended.wait(POLL_SECONDS):
        stop.hear_others()


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Stands for the thread that hears the signal."""
