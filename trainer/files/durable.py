"""Durable writes: whole files or the old ones, flushed to the disk."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.files.plain import remove, write_new

RESERVE_BYTES = 4096
"""Of a file that has to be written also on a full disk: blanks at its end, to be written over."""


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


def write_json(file: Path, value: Any) -> None:
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes a file that is either the old one or complete."""
    staging = file.with_name(f".{file.name}.staging")
    write_new(staging, text)
    staging.replace(file)


def write_with_reserve(file: Path, value: Any) -> None:
    """Writes JSON as `write_json` does, or where nothing new fits on the disk over the old file."""
    text = json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
    text = text.ljust(RESERVE_BYTES - 1) + b"\n"
    staging = file.with_name(f".{file.name}.staging")
    try:
        remove(staging)
        staging.write_bytes(text)
        staging.replace(file)
    except OSError:
        with suppress(OSError):
            staging.unlink()  # whose inode and bytes are the last ones, perhaps
        try:
            with file.open("rb+", buffering=0) as opened:
                opened.write(text)
                opened.truncate(len(text))
        except FileNotFoundError:
            file.write_bytes(text)
