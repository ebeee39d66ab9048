"""Ends this process: used by the command line and by the threads that handle signals for it.

Everything below the command line returns or raises and never ends the process that uses it.
"""

import os
import sys
from typing import NoReturn

from trainer.distributed.environment_variables import num_ranks


def end(code: int) -> NoReturn:
    """Ends a command: with Python's clean-up, or at once if it is one of several ranks.

    A rank that freed its model on the way out could hang: gloo's destructor waits, under Python's
    lock, for a thread that needs the lock.
    """
    if num_ranks() == 1:
        sys.exit(code)
    sys.stdout.flush()
    sys.stderr.flush()
    end_now(code)


def end_now(code: int) -> NoReturn:
    """Ends the process from any thread: no destructor, exit handler or buffered line follows."""
    os._exit(code)
