"""Out of memory: how libraries report it, and the error that says what holds it and what helps."""

import os
import re
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any

from trainer.errors import OutOfMemoryError, TrainerError, causes
from trainer.wording import format_bytes

SPELLED = re.compile(
    r"out of memory|out_of_memory|OutOfMemory|not enough memory|[Cc]an(?:no|')t allocate memory"
    r"|Unable to allocate|std::bad_alloc|bad allocation|ALLOC_FAILED|[mre]alloc of size \d+ failed"
    r"|[Mm]emory allocation (?:of \d+ bytes )?failed|Failed to (?:CUDA )?[cm]alloc"
    r"|unable to mmap|failed to map segment|Errno 12\b|os error 12\b|can't start new thread"
    r"|could not create a (?:primitive|memory object)|insufficient memory"
    r"|error return without exception set|returned NULL without setting an exception"
)
"""How torch, CUDA, cuBLAS, NCCL, bitsandbytes, oneDNN, NumPy, pyarrow and the system report it, and
Python if it has no memory left for a message."""
_REQUESTED = re.compile(
    r"(?:allocate|size|of) (\d+(?:\.\d*)?) ?(bytes|[KMGTPE]i?B)?(?: |\.|,|$)", re.IGNORECASE
)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50, "e": 2**60}
ADVICE = (
    "set batch.micro_batch_size=1, model.gradient_checkpointing=true or tuning.mode=qlora unless "
    "they are set, or give the process more memory"
)
"""For commands that do not know more about what they were doing."""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error, or one of its causes, says that memory is exhausted."""
    for cause in causes(error):
        if isinstance(cause, TrainerError) and not isinstance(cause, OutOfMemoryError):
            continue  # a reader takes any failure for a damaged file
        names = {kind.__name__ for kind in type(cause).__mro__}
        if names & {"MemoryError", "OutOfMemoryError", "ArrowMemoryError"}:
            return True
        plausible = isinstance(cause, RuntimeError | OSError | ImportError | SystemError)
        if (plausible or "torch" in type(cause).__module__) and SPELLED.search(str(cause)):
            return True
    return False


def out_of_memory(
    error: BaseException, doing: str = "", taken: str = "", advice: str = ADVICE
) -> OutOfMemoryError:
    """Returns the error to raise for one that `is_out_of_memory`.

    `doing` says when, such as "in step 3", and `taken` what holds memory already.
    """
    requested = requested_bytes(error)
    more = f"{format_bytes(requested)} more" if requested else "what it needs"
    holds = f", {taken}" if taken else ""
    return OutOfMemoryError(
        f"out of memory{f' {doing}' * bool(doing)}: {more} did not fit next to "
        f"{format_bytes(held_bytes())} in use{holds}",
        hint=advice,
    )


@contextmanager
def memory_reported(
    doing: str | Callable[[], str], taken: Callable[[], str], advice: Callable[[], str]
) -> Generator[None]:
    """Context manager: turns errors that say that memory is exhausted into an OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        moment = doing if isinstance(doing, str) else doing()
        raise out_of_memory(error, moment, taken(), advice()) from error


def requested_bytes(error: BaseException) -> float | None:
    """Returns the bytes that could not be allocated, or None if the error does not say."""
    for cause in causes(error):
        match = _REQUESTED.search(str(cause))
        if match and not isinstance(cause, TrainerError):
            unit = (match[2] or "bytes").lower()
            return float(match[1]) * (1 if unit == "bytes" else _UNITS[unit[0]])
    return None


def held_bytes() -> int:
    """Returns the bytes that the process holds, on its GPU if it uses one; 0 if unknown."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.memory_allocated()
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
