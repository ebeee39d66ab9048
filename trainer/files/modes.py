"""Modes of files: those that the umask leaves, also where a library writes for its user alone."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def follow_umask(path: Path) -> None:
    """Adds the modes that a new file or folder has to `path` and, in a folder, to all below it.

    Weights written by safetensors could otherwise be read by their owner only.
    """
    mask = _umask()
    for one in _below(path):
        mode = one.stat().st_mode
        wanted = mode | (0o777 if one.is_dir() else 0o666) & ~mask
        if wanted != mode:
            with suppress(OSError):  # some network file systems have no modes to change
                one.chmod(wanted)


def _below(path: Path) -> Iterator[Path]:
    if path.is_symlink():
        return
    yield path
    if path.is_dir():
        for one in path.iterdir():
            yield from _below(one)


def _umask() -> int:
    """Returns the umask; where the kernel does not tell, it is set for a moment to be known."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    if found := re.search(r"^Umask:\s*([0-7]+)$", status, re.MULTILINE):
        return int(found[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
