"""Folders that runs write to: where they are, whether they can be written, what is free."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trainer.doctor.finding import Finding, Level
from trainer.files.cache import cache_folder
from trainer.wording import format_bytes

LITTLE = 2 * 10**9
"""Bytes below which the free space is reported."""


@dataclass(frozen=True)
class Place:
    """A folder that a run writes to."""

    name: str
    folder: Path
    moved_by: str
    """What chooses another folder, in the imperative."""
    unwritable: Level
    """What it means if nothing can be written there."""


def about_storage() -> Iterator[Finding]:
    """Yields the free space of each folder that runs write to, and whether they can write."""
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    places = (
        Place("run directories", Path("runs").absolute(), "give --run-dir", "warning"),
        Place("prepared data", cache_folder(), "set TRAINER_CACHE", "warning"),
        Place("files of the hub", Path(HF_HUB_CACHE), "set HF_HOME", "warning"),
        Place("rows of the hub", Path(HF_DATASETS_CACHE), "set HF_HOME", "warning"),
        Place("home folder", _home(), "set HOME", "note"),
    )
    for place in places:
        yield of_place(place)
    yield _temporary()


def of_place(place: Place) -> Finding:
    """Returns whether a folder can be written or created, and what is free; writes nothing."""
    problem, free = why_unwritable(place.folder)
    figures = {"folder": str(place.folder), "free": free}
    code = place.name.replace(" ", "-")
    if problem is not None:
        message = f"{place.name}: {place.folder} cannot be written: {problem}"
        return Finding(f"unwritable-{code}", place.unwritable, message, place.moved_by, figures)
    message = f"{place.name}: {format_bytes(free)} free at {place.folder}"
    if free < LITTLE and place.unwritable != "note":
        return Finding(f"little-space-{code}", "warning", message, place.moved_by, figures)
    return Finding(code, "fine", message, None, figures)


def why_unwritable(folder: Path) -> tuple[str | None, int]:
    """Returns, as a clause, why nothing can be written into a folder that exists or is to be
    created, None if it can, and the free bytes of its disk."""
    existing = next(
        (place for place in (folder, *folder.parents) if os.path.lexists(place)), folder
    )
    try:
        if not existing.is_dir():
            return f"{existing} is not a folder", 0
        free, system = shutil.disk_usage(existing).free, os.statvfs(existing)
    except OSError as error:
        return error.strerror or str(error), 0
    if system.f_flag & os.ST_RDONLY:
        return "its file system is read-only", free
    if system.f_blocks == 0:
        return f"{existing} is on a file system that stores nothing", free
    if system.f_files and not system.f_favail:
        return "its file system can hold no more files", free
    if not os.access(existing, os.W_OK | os.X_OK):
        return f"this user may not write to {existing}", free
    return None, free


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no such user, as in some containers
        return Path("/nonexistent")


def _temporary() -> Finding:
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError:
        return Finding(
            "no-temporary-folder",
            "failure",
            "no folder for temporary files can be written",
            "set TMPDIR to one that can",
        )
    return of_place(Place("temporary files", Path(folder), "set TMPDIR", "failure"))
