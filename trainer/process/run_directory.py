"""The run directory: owned by one process at a time, and of one recipe."""

import os
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from trainer.errors import RunDirectoryError
from trainer.files.durable import write_text
from trainer.files.file_lock import is_locked, lock
from trainer.files.plain import read_text, reason
from trainer.process.continuation import LENGTH, instead, may_continue
from trainer.process.run_entries import writing_to
from trainer.recipe.keys import differences, flatten, given_keys, with_values
from trainer.recipe.reading import RecipeT, dump_yaml, validated
from trainer.recipe.schema import Recipe
from trainer.recipe.yaml12 import read_yaml
from trainer.wording import excerpt, listed

MAY_DIFFER = (
    *("batch.micro_batch_size", "model.gradient_checkpointing"),
    *("checkpoint.", "tracking.", "push"),
)
"""Keys that may change between the start of a run and its continuation."""
BEFORE: dict[str, Any] = {
    "data.columns.system": None,
    "data.columns.tools": None,
    "data.special_tokens": "parsed",
    "model.head_labels": "position",
    "model.pad_token": "added",
    "task.check_labels": False,
    "task.pair_separator": None,
}
"""Values of runs that began before a key existed, if they differ from the key's default."""
LAG_SECONDS = 60
"""Time after which a file that another machine wrote is visible on a shared file system."""


_claimed: list[Path] = []


@contextmanager
def claim(directory: Path) -> Generator[None]:
    """Context manager: holds the run directory for this process.

    Raises RunDirectoryError if another process holds it; the lock ends with its process.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        # Neither follow a link nor wait for a pipe.
        flags = os.O_RDWR | os.O_CREAT
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # not on Windows
        file = os.fdopen(os.open(directory / ".lock", flags, 0o666), "r+")
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"the run directory {directory} cannot be written: {reason(error)} (.lock)",
            key=str(directory),
            hint="choose another --run-dir",
        ) from error
    with file:
        try:
            lock(file.fileno(), wait=False)
        except BlockingIOError as error:
            file.seek(0)
            holder = excerpt(file.read(40).strip() or "unknown", 20)
            raise RunDirectoryError(
                f"process {holder} is training in {directory}",
                key=str(directory),
                value=holder,
                hint="wait for it, or choose another --run-dir",
            ) from error
        except OSError as error:
            raise RunDirectoryError(
                f"the file system of {directory} does not lock files ({error.strerror})",
                key=str(directory),
                hint="choose a --run-dir on one that does, or mount it so (Lustre: -o flock)",
            ) from error
        with suppress(OSError):  # a full disk, on which a run may well end
            os.ftruncate(file.fileno(), 0)
            os.write(file.fileno(), str(os.getpid()).encode())
        _claimed.append(directory)
        try:
            yield
        finally:
            _claimed.remove(directory)


def claimed(directory: Path) -> bool:
    """Returns whether this process holds a run directory."""
    return directory in _claimed


def is_held(directory: Path) -> bool:
    """Returns whether a process, on any machine, holds a run directory; True if it cannot be
    known."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(directory / ".lock", flags)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        return is_locked(descriptor)
    finally:
        os.close(descriptor)


def leave_token(directory: Path) -> str:
    """Writes a new random token into the directory, and returns it."""
    token = uuid4().hex
    with writing_to(directory):
        write_text(directory / ".token", token)
    return token


def sees_token(directory: Path, token: str) -> bool:
    """Returns whether the directory holds the token; waits, because network file systems lag."""
    end = time.monotonic() + LAG_SECONDS
    while True:
        with suppress(OSError, ValueError):
            if read_text(directory / ".token") == token:
                return True
        if time.monotonic() > end:
            return False
        time.sleep(0.5)


def read_recipe(directory: Path, kind: type[RecipeT]) -> RecipeT:
    """Returns the recipe of a run, complete with what it did before newer keys existed.

    `kind` is the recipe that knows the tasks. Raises RunDirectoryError if the directory
    holds no run.
    """
    file = directory / "config.yaml"
    try:
        text = read_text(file)
    except FileNotFoundError:
        raise RunDirectoryError(
            f"{directory} holds no run: there is no config.yaml in it", key=str(directory)
        ) from None
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{file} cannot be read: {excerpt(reason(error))}", key=str(file)
        ) from error
    values = read_yaml(text, str(file))
    if not isinstance(values, dict):
        raise RunDirectoryError(
            f"{file} is no longer the recipe of a run", key=str(file), hint="restore it"
        )
    recipe = validated(kind, values, str(file))
    return with_values(recipe, {k: v for k, v in BEFORE.items() if k not in given_keys(recipe)})


def continued(directory: Path, recipe: RecipeT) -> RecipeT:
    """Returns a recipe as it continues a run: with the run's value for each key of BEFORE that the
    recipe does not give."""
    started = flatten(read_recipe(directory, type(recipe)).model_dump(mode="json"))
    kept = {key: started[key] for key in BEFORE if key in started}
    return with_values(recipe, {k: v for k, v in kept.items() if k not in given_keys(recipe)})


def check_recipe(directory: Path, recipe: Recipe) -> list[str]:
    """Returns a sentence for each key that changed since the run started and may change.

    Raises RunDirectoryError, with both values, for any other difference.
    """
    earlier = read_recipe(directory, type(recipe))
    changed = differences(earlier, continued(directory, recipe))
    refused = {
        key: values
        for key, values in changed.items()
        if not key.startswith(MAY_DIFFER) and not may_continue(key, earlier, recipe)
    }
    if refused:
        different = listed(
            f"{key} is {excerpt(repr(old), 40)} there and {excerpt(repr(new), 40)} here"
            for key, (old, new) in refused.items()
        )
        hint = "choose another --run-dir"
        if refused.keys() <= set(LENGTH):
            hint = (
                f"only under the constant schedule can a run train longer, because under "
                f"{recipe.schedule.name} all its learning rates would change: {instead(directory)}"
            )
        key = next(iter(refused))
        raise RunDirectoryError(
            f"{directory} belongs to a run of another recipe: {different}",
            key=key,
            value=refused[key][1],
            hint=hint,
        )
    return [f"{key} was {old!r} and is now {new!r}" for key, (old, new) in changed.items()]


def free_name(directory: Path) -> Path:
    """Returns the first of DIR-2, DIR-3, … that does not exist."""
    number = 2
    while (free := directory.with_name(f"{directory.name}-{number}")).exists():
        number += 1
    return free


def write_recipe(directory: Path, recipe: Recipe) -> None:
    write_text(directory / "config.yaml", dump_yaml(recipe))
