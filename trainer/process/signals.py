"""What asks this process to stop, heard from its first line to its last.

Only the standard library is imported here: a signal that comes while others are imported has to
find a listener. A thread hears, because handlers in Python wait for the main thread, which may be
in a library.
"""

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType

from trainer.errors import INTERRUPTED, STOPPED

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
TAKEN_OVER_SECONDS = 15.0
"""Within which a command that was announced takes over what is heard."""


def stopping_signals() -> list[signal.Signals]:
    """Returns the signals that ask to stop; a closed terminal does not where nohup says so."""
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return [number for number in STOPPING if number != signal.SIGHUP or not nohup]


def code_of(number: int) -> int:
    """Returns the exit code of a process that a signal stops."""
    return INTERRUPTED if number == signal.SIGINT else STOPPED


def say(sentence: str) -> None:
    """Writes a line to stderr from any thread, unless nobody reads what is there already."""
    if os.environ.get("RANK", "0") != "0":
        return
    with suppress(OSError, ValueError):
        if select.select([], [2], [], 0.2)[1]:
            os.write(2, f"trainer: {sentence}\n".encode(errors="replace"))


class Listener:
    """Ends the process at a signal, until a command takes over or the work is done."""

    def __init__(self) -> None:
        self._ears, self._mouth = socket.socketpair()
        self._mouth.setblocking(False)
        self._change = threading.Condition()
        self._heard: list[int] = []
        self._forward: Callable[[int], None] | None = None
        self._expects = self._settled = False

    def start(self) -> None:
        """Hears from now on."""
        threading.Thread(target=self._listen, daemon=True).start()
        signal.set_wakeup_fd(self._mouth.fileno(), warn_on_full_buffer=False)
        for number in stopping_signals():
            signal.signal(number, _do_nothing)
        os.register_at_fork(after_in_child=_hear_nothing)

    def expect(self) -> None:
        """Keeps what is heard for a command that is about to take over, and says itself what."""
        self._expects = True

    @contextmanager
    def taken_over(self, forward: Callable[[int], None]) -> Generator[None]:
        """Gives what was heard and is heard inside to `forward`; afterwards the work is done."""
        with self._change:
            self._forward = forward
            for number in self._heard:
                forward(number)
            self._heard.clear()
            self._change.notify_all()
        try:
            yield
        finally:
            self.settle()
            with self._change:
                self._forward = None

    def settle(self) -> None:
        """Heeds nothing any more: the work is done, and its exit code stands."""
        self._settled = True

    def _listen(self) -> None:
        while True:
            for number in self._ears.recv(64):
                if number in STOPPING:
                    self._hear(number)

    def _hear(self, number: int) -> None:
        with self._change:
            self._heard.append(number)
            if self._forward is None and self._expects:
                self._change.wait_for(lambda: self._forward, TAKEN_OVER_SECONDS)
            if self._forward is not None:
                for one in self._heard:
                    self._forward(one)
                self._heard.clear()
                return
            if not self._settled and self._heard:
                first = self._heard[0]
                asked = f"asked to stop ({signal.Signals(first).name})"
                say("interrupted" if first == signal.SIGINT else asked)
                os._exit(code_of(first))


_listener: Listener | None = None


def start() -> None:
    """Has this process end by itself, with a code that says so, where it is asked to stop."""
    global _listener
    _listener = Listener()
    _listener.start()


def expect() -> None:
    """Lets a command that takes over soon hear what comes before."""
    if _listener is not None:
        _listener.expect()


def settle() -> None:
    """Lets the exit code of what is done stand, whatever comes."""
    if _listener is not None:
        _listener.settle()


def settle_for_good() -> None:
    """Ignores what asks to stop while Python ends, which takes a while."""
    settle()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def taken_over(forward: Callable[[int], None]) -> Generator[bool]:
    """Gives what the process has heard since its first line, and hears inside, to `forward`.

    Yields whether the process hears at all; else a command installs handlers of its own.
    """
    if _listener is None:
        yield False
        return
    with _listener.taken_over(forward):
        yield True


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Stands for the thread that hears the signal."""


def _hear_nothing() -> None:
    """Lets a signal end a forked process, which has no thread to hear it."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        for number in stopping_signals():
            signal.signal(number, signal.SIG_DFL)
