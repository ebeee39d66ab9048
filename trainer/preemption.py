"""Signals that ask a run to stop: noted at once, acted upon at the next step boundary."""

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StopRequest:
    """Whether, and by which signal, this process was asked to stop."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def interrupted(self) -> bool:
        """Whether it was Ctrl-C."""
        return self.signal is signal.SIGINT


@contextmanager
def listen() -> Generator[StopRequest]:
    """Notes the first of SIGTERM, SIGUSR1 and Ctrl-C; a second one ends the process at once."""
    request = StopRequest()

    def note(number: int, _frame: FrameType | None) -> None:
        if request.requested:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)
        if request.interrupted and os.environ.get("RANK", "0") == "0":
            os.write(2, b"\nsaving at the end of this step; Ctrl-C again ends at once\n")

    before = {number: signal.signal(number, note) for number in STOPPING}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
