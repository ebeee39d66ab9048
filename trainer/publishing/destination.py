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


def check_destination(dest: Path, run_dir: Path) -> None:
    """Raises ConfigError if something is in the place of the folder, or if it would lie in a folder
    that a run writes itself."""
    shown = excerpt(dest, 200)
    taken = os.path.lexists(dest) and not (dest.is_dir() and not any(dest.iterdir()))
    inside = [name for name in FOLDERS if dest.resolve().is_relative_to(run_dir.resolve() / name)]
    problem = None
    if inside:
        problem = f"{shown} lies in {inside[0]}/ of the run, which the run replaces"
    elif taken:
        problem = f"{shown} exists already" if dest.is_dir() else f"{shown} is not a folder"
    if problem is not None:
        raise ConfigError(
            f"DEST: {problem}",
            key="DEST",
            value=str(dest),
            hint="name a folder that does not exist",
        )


@contextmanager
def staged(dest: Path) -> Generator[Path]:
    """Context manager: yields a hidden folder beside `dest`, which becomes it at the end.

    After an error nothing of it is left, nor any folder above that was made for it. Raises
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
        remove(dest)  # an empty folder
        staging.rename(dest)
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
