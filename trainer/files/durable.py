"""Durable writes: a file is the old one or the complete new one, and flushed to the disk."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainer.files.plain import remove, write_new

RESERVE_BYTES = 4096
"""Size of a file that must be writable on a full disk: blanks at its end can be overwritten."""


def flush(path: Path) -> None:
    """Flushes a file, or the list of names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all(folder: Path) -> None:
    """Flushes a folder and everything below it to the disk."""
    for path in folder.rglob("*"):
        flush(path)
    flush(folder)


def write_json(file: Path, value: Any) -> None:
    """Writes JSON so that the file is always the old one or complete."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Writes text so that the file is always the old one or complete."""
    staging = file.with_name(f".{file.name}.staging")
    write_new(staging, text)
    staging.replace(file)


def write_bytes(file: Path, content: bytes) -> None:
    """Writes bytes so that the file is always the old one or complete."""
    staging = file.with_name(f".{file.name}.staging")
    remove(staging)
    with staging.open("xb") as opened:
        opened.write(content)
    staging.replace(file)


def write_with_reserve(file: Path, value: Any) -> None:
    """Writes JSON as `write_json` does or, if the disk is full, over the old file."""
    text = json.dumps(value, indent=2, ensure_ascii=False).encode("utf-8", "backslashreplace")
    text = text.ljust(RESERVE_BYTES - 1) + b"\n"
    staging = file.with_name(f".{file.name}.staging")
    try:
        remove(staging)
        staging.write_bytes(text)
        staging.replace(file)
    except OSError:
        with suppress(OSError):
            staging.unlink()  # it may hold the last free inode and bytes
        try:
            with file.open("rb+", buffering=0) as opened:
                opened.write(text)
                opened.truncate(len(text))
        except FileNotFoundError:
            file.write_bytes(text)
