"""File modes: those the umask allows, even if a library writes for its own user only."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def follow_umask(path: Path) -> None:
    """Gives `path`, and everything below it, the permissions of newly created files and folders.

    safetensors writes weights that only their owner can read.
    """
    mask = _umask()
    for entry in _below(path):
        mode = entry.stat().st_mode
        wanted = mode | (0o777 if entry.is_dir() else 0o666) & ~mask
        if wanted != mode:
            with suppress(OSError):  # some network file systems do not support modes
                entry.chmod(wanted)


def _below(path: Path) -> Iterator[Path]:
    if path.is_symlink():
        return
    yield path
    if path.is_dir():
        for entry in path.iterdir():
            yield from _below(entry)


def _umask() -> int:
    """Returns the umask, from /proc or else by setting it for a moment."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        status = ""
    if match := re.search(r"^Umask:\s*([0-7]+)$", status, re.MULTILINE):
        return int(match[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
