"""Signals that ask this process to stop, handled from its first line to its last.

Only light modules are imported here, so that signals are handled while libraries are imported. A
thread listens, because Python runs signal handlers in the main thread, which may be
busy inside a library.
"""

import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from trainer.distributed.environment_variables import is_main
from trainer.errors import INTERRUPTED, STOPPED
from trainer.process.exit import end_now

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGINT", "SIGHUP")
    if hasattr(signal, name)  # Windows has two of them
)
TAKEOVER_SECONDS = 15.0
"""How long a signal waits for the command that `expect` announced."""


def stopping_signals() -> list[signal.Signals]:
    """Returns the signals that ask to stop: all of STOPPING, but SIGHUP under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    ignored = hangup is not None and signal.getsignal(hangup) is signal.SIG_IGN
    return [number for number in STOPPING if not (ignored and number == hangup)]


def code_of(number: int) -> int:
    """Returns the exit code of a process that a signal stops."""
    return INTERRUPTED if number == signal.SIGINT else STOPPED


def say(sentence: str) -> None:
    """Writes a line to stderr from any thread, on the main process only.

    Skips it if the reader of a full pipe does not read.
    """
    if not is_main():
        return
    with suppress(OSError, ValueError):
        if select.select([], [2], [], 0.2)[1]:
            os.write(2, f"trainer: {sentence}\n".encode(errors="replace"))


class Listener:
    """Receives signals in a thread, and hands them to the command that takes them over.

    Until a command does, a signal ends the process, unless `begin_shutdown` was called.
    """

    def __init__(self) -> None:
        self._wakeup_read, self._wakeup_write = socket.socketpair()
        self._wakeup_write.setblocking(False)
        self._change = threading.Condition()
        self._pending: list[int] = []
        self._forward: Callable[[int], None] | None = None
        self._expects_takeover = self._shutting_down = self._raises_interrupts = False
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._handlers: dict[int, Any] = {}
        self._wakeup_before = -1

    def start(self) -> None:
        """Listens from now on. Main thread only."""
        self._thread.start()
        self._wakeup_before = signal.set_wakeup_fd(
            self._wakeup_write.fileno(), warn_on_full_buffer=False
        )
        for number in stopping_signals():
            self._handlers[number] = signal.signal(number, _do_nothing)

    def stop(self) -> None:
        """Puts the handlers back that `start` replaced, and ends the thread once it has delivered
        what arrived. Main thread only."""
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._wakeup_write.close()
        self._thread.join()
        self._wakeup_read.close()

    def expect(self) -> None:
        """Keeps signals for a command that is about to take over."""
        self._expects_takeover = True

    def raise_interrupts(self) -> None:
        """Lets SIGINT raise KeyboardInterrupt from now on. Main thread only."""
        self._raises_interrupts = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def begin_shutdown(self) -> None:
        """Ignores signals from now on: the work is done, and its exit code stays as it is."""
        self._shutting_down = True

    @contextmanager
    def taken_over(self, forward: Callable[[int], None]) -> Generator[None]:
        """Context manager: calls `forward` with each signal, pending ones included, in the thread
        that listens. On leaving, the work is done."""
        with self._change:
            self._forward = forward
            self._deliver()
            self._change.notify_all()
        try:
            yield
        finally:
            self.begin_shutdown()
            with self._change:
                self._forward = None

    def _listen(self) -> None:
        while numbers := self._wakeup_read.recv(64):
            for number in numbers:
                if number in STOPPING and not (number == signal.SIGINT and self._raises_interrupts):
                    self._receive(number)

    def _receive(self, number: int) -> None:
        with self._change:
            self._pending.append(number)
            if self._forward is None and self._expects_takeover:
                self._change.wait_for(lambda: self._forward, TAKEOVER_SECONDS)
            if self._forward is not None:
                self._deliver()
            elif not self._shutting_down and self._pending:
                first = self._pending[0]
                name = signal.Signals(first).name
                say("interrupted" if first == signal.SIGINT else f"asked to stop ({name})")
                end_now(code_of(first))

    def _deliver(self) -> None:
        assert self._forward is not None
        for number in self._pending:
            self._forward(number)
        self._pending.clear()


_listener: Listener | None = None


def start() -> None:
    """Listens for the rest of this process, which a signal ends until a command takes over."""
    global _listener
    _listener = Listener()
    _listener.start()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_restore_defaults)


def expect() -> None:
    """Keeps signals for a command that is about to call `taken_over`."""
    if _listener is not None:
        _listener.expect()


def raise_interrupts() -> None:
    """Lets SIGINT raise KeyboardInterrupt from now on, for a command that a user interrupts without
    ending it. Main thread only."""
    if _listener is not None:
        _listener.raise_interrupts()


def begin_shutdown() -> None:
    """Ignores signals from now on: the work is done, and its exit code stays as it is."""
    if _listener is not None:
        _listener.begin_shutdown()


def ignore_for_good() -> None:
    """Ignores signals while the interpreter exits, which takes a while and has no listener."""
    begin_shutdown()
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def taken_over(forward: Callable[[int], None]) -> Generator[None]:
    """Context manager: calls `forward` with each signal that asks to stop, in a thread.

    These include signals that arrived since the process began to listen. A process that does not
    listen by itself does so inside, from its main thread.
    """
    if _listener is not None:
        with _listener.taken_over(forward):
            yield
        return
    listener = Listener()
    listener.start()
    with listener.taken_over(forward):
        try:
            yield
        finally:
            listener.stop()


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Stands in for the thread, which reads the signal from the wake-up socket."""


def _restore_defaults() -> None:
    """Lets signals end a forked process, whose copy of the listener has no thread."""
    if threading.current_thread() is threading.main_thread():
        signal.set_wakeup_fd(-1)
        for number in stopping_signals():
            signal.signal(number, signal.SIG_DFL)
