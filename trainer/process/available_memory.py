"""Memory that a new process can still take on this machine."""

import re
from collections.abc import Iterator
from pathlib import Path

from trainer.process.control_groups import control_groups

_SECOND_VERSION = ("memory.max", "memory.current")
_FIRST_VERSION = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def available_bytes(root: Path = Path("/")) -> int | None:
    """Returns how many bytes of memory the machine and the control groups of this process have
    left; None if the system does not say, as outside Linux.

    Page cache counts as free: the system drops it when memory is needed. `root` is the folder of
    /proc and /sys.
    """
    try:
        text = (root / "proc/meminfo").read_text()
    except OSError:
        return None
    match = re.search(r"^MemAvailable:\s*(\d+) kB", text, re.MULTILINE)
    limits = [*([int(match[1]) * 1024] if match else []), *_left_in_groups(root)]
    return max(0, min(limits)) if limits else None


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yields what is left in each control group that holds this process and limits memory."""
    for folder in control_groups(root, "memory"):
        left = _left(folder)
        if left is not None:
            yield left


def _left(folder: Path) -> int | None:
    second = (folder / "memory.max").exists()
    limit, used = _SECOND_VERSION if second else _FIRST_VERSION
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        statistics = (folder / "memory.stat").read_text()
    except (OSError, ValueError):
        return None
    if not most.isdecimal():  # "max"
        return None
    cached = re.search(r"^(?:total_)?inactive_file (\d+)", statistics, re.MULTILINE)
    return int(most) - now + (int(cached[1]) if cached else 0)
