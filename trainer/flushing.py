"""Makes sure that what was written lies on the disk, also where the power goes off."""

import os
from pathlib import Path


def flush(path: Path) -> None:
    """Returns once a file, or the names in a folder, lie on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """Returns once a folder and everything below it lie on the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)
