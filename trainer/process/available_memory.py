"""Memory that a new process can still take on this machine."""

import re
from collections.abc import Iterator
from pathlib import Path


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
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        second = not controllers
        base = root / ("sys/fs/cgroup" if second else "sys/fs/cgroup/memory")
        names = ("memory.max", "memory.current") if second else _FIRST_VERSION
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            left = _left(folder, *names)
            if left is not None:
                yield left
            if folder == base:
                break


_FIRST_VERSION = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _left(folder: Path, limit: str, used: str) -> int | None:
    try:
        most, now = (folder / limit).read_text().strip(), int((folder / used).read_text())
        statistics = (folder / "memory.stat").read_text()
    except (OSError, ValueError):
        return None
    if not most.isdecimal():  # "max"
        return None
    cached = re.search(r"^(?:total_)?inactive_file (\d+)", statistics, re.MULTILINE)
    return int(most) - now + (int(cached[1]) if cached else 0)
