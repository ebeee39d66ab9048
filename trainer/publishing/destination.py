"""The folder that an export goes to: it appears complete, or not at all."""

import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from trainer.errors import ConfigError
from trainer.files.durable import flush_all
from trainer.files.file_errors import file_error
from trainer.files.modes import follow_umask
from trainer.files.plain import remove
from trainer.process.run_entries import FOLDERS
from trainer.wording import excerpt


def free_destination(dest: Path, run_dir: Path) -> Path:
    """Returns the absolute path of a folder to be written, free of links and `..`.

    Raises ConfigError if something is in its place, or if it would lie in a folder that a run
    writes itself. An empty folder is free.
    """
    shown = excerpt(dest, 200)
    place, run = Path(os.path.realpath(dest)), Path(os.path.realpath(run_dir))
    is_empty = place.is_dir() and not any(place.iterdir())
    taken = dest.is_symlink() or (os.path.lexists(place) and not is_empty)
    inside = [name for name in FOLDERS if place.is_relative_to(run / name)]
    problem = None
    if inside:
        problem = f"{shown} lies in {inside[0]}/ of the run, which the run replaces"
    elif taken:
        problem = f"{shown} exists already" if place.is_dir() else f"{shown} is not a folder"
    if problem is not None:
        raise ConfigError(
            f"DEST: {problem}",
            key="DEST",
            value=str(dest),
            hint="name a folder that does not exist",
        )
    return place


@contextmanager
def staged(dest: Path) -> Generator[Path]:
    """Context manager: yields a hidden folder beside `dest`, which takes its name at the end.

    `dest` does not exist or is an empty folder; what has appeared in it by then is not touched.
    After an error nothing of the export is left, nor any folder above that was made for it. Raises
    FileError if the system refuses.
    """
    made = [folder for folder in dest.parents if not folder.exists()]
    staging = dest.with_name(f".{dest.name}.staging")
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        remove(staging)
        staging.mkdir()
        yield staging
        follow_umask(staging)
        flush_all(staging)
        _rename(staging, dest)
    except BaseException as error:
        with suppress(OSError):
            remove(staging)
        for folder in made:
            with suppress(OSError):
                folder.rmdir()
        known = file_error(error, dest.parent) if isinstance(error, OSError) else None
        if known is not None:
            raise known from error
        raise


def _rename(staging: Path, dest: Path) -> None:
    """Renames a folder to one that does not exist or is empty; the system refuses any other."""
    try:
        staging.rename(dest)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(dest)) from error
