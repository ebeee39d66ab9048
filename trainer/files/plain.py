"""Safe file access: only plain files are read, and writing never follows a link."""

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from contextlib import suppress
from io import BufferedReader
from pathlib import Path
from typing import Any

from trainer.files.file_errors import kind_of_path

SEAL = "checksum"


def open_plain(file: Path) -> BufferedReader:
    """Opens a plain file for reading.

    Raises OSError for a folder, a pipe or a device: opening or reading one could block forever.
    """
    descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, f"it is {kind_of_path(mode)}, not a file", str(file))
    return os.fdopen(descriptor, "rb")


def read_text(file: Path) -> str:
    """Returns the text of a plain file; raises OSError, or ValueError if it is not UTF-8."""
    with open_plain(file) as opened:
        content = opened.read()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1:,} is not UTF-8") from error


def read_json(file: Path) -> Any:
    """Returns the value in a plain JSON file; raises OSError, or ValueError if it is not JSON."""
    return parse_json(read_text(file))


def parse_json(text: str) -> Any:
    """Returns the value of a JSON text; raises ValueError if it is invalid or nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def sealed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values plus a checksum of them, by which `is_changed` notices a later edit."""
    return {**values, SEAL: _checksum(values)}


def is_changed(values: Mapping[str, Any]) -> bool:
    """Returns whether `sealed` values were edited; False without a checksum (older versions)."""
    return SEAL in values and values[SEAL] != _checksum(values)


def _checksum(values: Mapping[str, Any]) -> str:
    kept = {key: value for key, value in values.items() if key != SEAL}
    text = json.dumps(json.loads(json.dumps(kept)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def reason(error: OSError | ValueError) -> str:
    """Returns what is wrong with a file, without its name."""
    if isinstance(error, OSError) and error.strerror is not None:
        return error.strerror
    return str(error)


def write_new(file: Path, text: str) -> None:
    """Writes a new file in place of anything with its name; a link is replaced, not followed."""
    if os.path.lexists(file):
        remove(file)
    with file.open("x", encoding="utf-8") as opened:
        opened.write(text)


def remove(path: Path) -> None:
    """Removes a folder or file if it exists; a link is removed, not followed."""
    with suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
