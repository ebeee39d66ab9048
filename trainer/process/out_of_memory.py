"""Out of memory: how libraries say it, and the sentence that says what took it and what helps."""

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
"""How torch, CUDA, cuBLAS, NCCL, bitsandbytes, oneDNN, NumPy, pyarrow and the system say it, and
Python where it has no memory to say it."""
_ASKED = re.compile(
    r"(?:allocate|size|of) (\d+(?:\.\d*)?) ?(bytes|[KMGTPE]i?B)?(?: |\.|,|$)", re.IGNORECASE
)
_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50, "e": 2**60}
ADVICE = (
    "set batch.micro_batch_size=1, model.gradient_checkpointing=true or tuning.mode=qlora where "
    "they are not, or give the process more memory"
)
"""For commands that do not know more of what they were doing."""


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error, or one that it was raised from, says that memory is exhausted."""
    for one in causes(error):
        if isinstance(one, TrainerError) and not isinstance(one, OutOfMemoryError):
            continue  # a reader that takes whatever fails for a damaged file
        names = {kind.__name__ for kind in type(one).__mro__}
        if names & {"MemoryError", "OutOfMemoryError", "ArrowMemoryError"}:
            return True
        said = isinstance(one, RuntimeError | OSError | ImportError | SystemError)
        if (said or "torch" in type(one).__module__) and SPELLED.search(str(one)):
            return True
    return False


def out_of_memory(
    error: BaseException, doing: str = "", taken: str = "", advice: str = ADVICE
) -> OutOfMemoryError:
    """Returns the sentence for an error that `is_out_of_memory`.

    `doing` is such as "in step 3", `taken` says what holds memory already.
    """
    asked = asked_for(error)
    more = f"{format_bytes(asked)} more did not fit" if asked else "what it needs did not fit"
    held = f" beside {format_bytes(held_bytes())} in use"
    holds = f", {taken}" if taken else ""
    return OutOfMemoryError(
        f"out of memory{f' {doing}' * bool(doing)}: {more}{held}{holds}; {advice}"
    )


@contextmanager
def memory_told(
    doing: str | Callable[[], str], taken: Callable[[], str], advice: Callable[[], str]
) -> Generator[None]:
    """Turns what says inside that memory is exhausted into an OutOfMemoryError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
            raise
        said = doing if isinstance(doing, str) else doing()
        raise out_of_memory(error, said, taken(), advice()) from error


def asked_for(error: BaseException) -> float | None:
    """Returns the bytes that could not be had, None where no library says so."""
    for one in causes(error):
        found = _ASKED.search(str(one))
        if found and not isinstance(one, TrainerError):
            unit = (found[2] or "bytes").lower()
            return float(found[1]) * (1 if unit == "bytes" else _UNITS[unit[0]])
    return None


def held_bytes() -> int:
    """Returns the bytes that the process holds, of its GPU where it has one; 0 if nothing says."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return torch.cuda.memory_allocated()
    with suppress(OSError, ValueError, IndexError), open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
