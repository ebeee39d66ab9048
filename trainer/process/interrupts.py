"""KeyboardInterrupt without a signal handler: the caller waits while a thread of its own works.

Python raises KeyboardInterrupt in the main thread, between any two instructions. In the midst of an
optimizer step it would leave weights that belong to no step. The main thread therefore only waits,
and turns an interrupt into a request to stop at the next step boundary.
"""

import contextvars
import ctypes
import signal
import threading
from collections.abc import Callable
from typing import TypeVar

from trainer.distributed.environment_variables import num_ranks
from trainer.errors import INTERRUPTED, Stopped
from trainer.process.stop_request import StopRequest

Outcome = TypeVar("Outcome")


class Interrupted(Stopped):
    """Raised in the working thread if there is no step boundary to wait for."""

    def __init__(self) -> None:
        super().__init__(INTERRUPTED, "interrupted")


def interruptible(work: Callable[[], Outcome], stop: StopRequest) -> Outcome:
    """Returns what `work` returns, or raises what it raises; it runs in another thread.

    A KeyboardInterrupt in the calling thread is a request to `stop`. Before the first step and
    after the last, and on a second interrupt, `work` is ended at once by a Stopped.
    """
    returned: list[Outcome] = []
    raised: list[BaseException] = []
    ended = threading.Event()  # an interrupted `join` of Python 3.11 forgets that the thread runs

    def run() -> None:
        try:
            returned.append(work())
        except BaseException as error:
            raised.append(error)
        finally:
            ended.set()

    # What is printed inside belongs to the notebook cell of the caller, which is in its context.
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="trainer", daemon=True)
    thread.start()
    while True:
        try:
            while not ended.wait(0.5):  # Windows does not interrupt a wait without end
                pass
            break
        except KeyboardInterrupt:
            stop.ask(signal.SIGINT.name)
            alone = num_ranks() == 1  # otherwise the other ranks would wait for this one
            if stop.alone or (alone and stop.leaving):
                _raise_in(thread, Interrupted)
    if raised:
        raise raised.pop()
    return returned.pop()


def _raise_in(thread: threading.Thread, kind: type[BaseException]) -> None:
    identity = ctypes.c_ulong(thread.ident or 0)
    ctypes.pythonapi.PyThreadState_SetAsyncExc(identity, ctypes.py_object(kind))
