"""The manifest of a checkpoint, which lists its files, and its record, which describes the run."""

import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import CheckpointError
from trainer.files.durable import flush, write_text
from trainer.files.plain import is_changed, open_plain, read_json, reason, sealed, write_new
from trainer.state import TrainState
from trainer.wording import excerpt, listed

MANIFEST, RECORD = "manifest.json", "state.json"
NAME = re.compile(r"(?:\.replaced-(?=.*-)|step-(?!.*-))([0-9]{8})(?:-.+)?")
"""Folder names of checkpoints, including those that a run was replacing when it died."""

Fingerprint = dict[str, int | str]
"""Size and checksum of a file: `bytes` and `sha256`."""


def fingerprint(file: Path) -> Fingerprint:
    """Returns size and checksum of a file. Raises OSError if it is not a regular file."""
    with open_plain(file) as opened:
        return {
            "bytes": os.fstat(opened.fileno()).st_size,
            "sha256": hashlib.file_digest(opened, "sha256").hexdigest(),
        }


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Returns the manifest of a checkpoint: `files` with their fingerprints, and `resumable`.

    Raises CheckpointError if there is no manifest, or if a run cannot have written it.
    """
    try:
        manifest = read_json(checkpoint / MANIFEST)
        if not isinstance(manifest, dict):
            raise ValueError(f"{MANIFEST} is not a mapping")
        if "resumable" not in manifest:
            raise CheckpointError(
                f"{checkpoint} was written by an older version, in another format",
                key=str(checkpoint),
            )
        if is_changed(manifest):
            raise ValueError(f"{MANIFEST} was changed after it was written")
        files = manifest.get("files")
        if not isinstance(files, dict) or not isinstance(manifest["resumable"], bool):
            raise ValueError(f"{MANIFEST} has another format")
        for name, expected in files.items():
            if Path(name).name != name or name in ("", ".."):
                raise ValueError(f"{MANIFEST} names {excerpt(name, 60)}, which is not a file in it")
            if not _is_fingerprint(expected):
                raise ValueError(f"{MANIFEST} has no size and checksum of {excerpt(name, 60)}")
        if RECORD not in files:
            raise ValueError(f"{MANIFEST} does not list {RECORD}")
    except (OSError, ValueError) as error:
        raise _incomplete(checkpoint, error) from error
    return {"resumable": manifest["resumable"], "files": dict(files)}


def write_manifest(folder: Path, files: Mapping[str, Fingerprint], *, resumable: bool) -> None:
    """Writes the manifest of a checkpoint; returns once it is on disk."""
    manifest = {"resumable": resumable, "files": dict(files)}
    write_text(folder / MANIFEST, json.dumps(sealed(manifest), indent=2))
    flush(folder / MANIFEST)


def verify(checkpoint: Path, *, resumable: bool = False) -> None:
    """Raises CheckpointError unless every file has the size and checksum of the manifest, and the
    record has the step that the folder's name says.

    With `resumable`, also raises it if the checkpoint holds weights only.
    """
    manifest = read_manifest(checkpoint)
    try:
        files = manifest["files"].items()
        changed = [name for name, expected in files if fingerprint(checkpoint / name) != expected]
    except OSError as error:
        raise _incomplete(checkpoint, error) from error
    if changed:
        raise CheckpointError(
            f"{checkpoint} was changed after it was written: {listed(changed, 3)}",
            key=str(checkpoint),
            value=changed,
        )
    read_record(checkpoint)
    if resumable and not manifest["resumable"]:
        raise CheckpointError(
            f"{checkpoint} holds weights only, because moments are kept for the last checkpoints "
            f"alone",
            key=str(checkpoint),
            hint="resume from a newer one",
        )


def write_record(
    folder: Path,
    *,
    state: TrainState,
    ends_epoch: bool,
    loss_scale: Mapping[str, float] | None,
    metrics: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> None:
    """Writes the record of a checkpoint; returns once it is on disk.

    `metrics` summarises the lines of metrics.jsonl so far. `facts` describe the run and are
    compared when it resumes; they include `order_digest` and `launch`.
    """
    record = {
        "state": state.as_dict(),
        "ends_epoch": ends_epoch,
        "loss_scale": loss_scale,
        "metrics": dict(metrics),
        **facts,
    }
    write_new(folder / RECORD, json.dumps(sealed(record), indent=2))
    flush(folder / RECORD)


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Returns the record of a checkpoint, with every key that `write_record` writes.

    Raises CheckpointError if it is damaged, or of another step than the folder's name says.
    """
    file = checkpoint / RECORD
    try:
        record = read_json(file)
        if not isinstance(record, dict):
            raise ValueError("it is not a mapping")
        if is_changed(record):
            raise ValueError("it was changed after it was written")
        state = TrainState.of(record.get("state"))
        named = NAME.fullmatch(checkpoint.name)
        if named is None or int(named[1]) != state.step:
            raise ValueError(f"it is of step {state.step}, but the folder's name is of another")
        for key, kind in (("order_digest", str), ("launch", dict), ("ends_epoch", bool)):
            if not isinstance(record.get(key), kind):
                raise ValueError(f"{key} is missing or has another format")
        for key in ("digests", "recipe", "metrics"):  # older versions do not write these
            if not isinstance(record.setdefault(key, {}), dict):
                raise ValueError(f"{key} has another format")
        scale = record.setdefault("loss_scale", None)
        if scale is not None and not _is_loss_scale(scale):
            raise ValueError("loss_scale has another format")
    except (OSError, ValueError) as error:
        why = excerpt(reason(error), 200)
        raise CheckpointError(f"{file} cannot be read: {why}", key=str(file)) from error
    return record


def _is_fingerprint(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"bytes", "sha256"}:
        return False
    size = value["bytes"]
    return type(size) is int and size >= 0 and isinstance(value["sha256"], str)


def _is_loss_scale(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"scale", "steps"}:
        return False
    finite = all(type(v) in (int, float) and math.isfinite(v) for v in value.values())
    return finite and value["scale"] > 0 and value["steps"] >= 0


def _incomplete(checkpoint: Path, error: OSError | ValueError) -> CheckpointError:
    why = reason(error)
    if isinstance(error, OSError) and error.filename is not None:
        why = f"{Path(str(error.filename)).name}: {why}"
    return CheckpointError(
        f"{checkpoint} is not a complete checkpoint: {excerpt(why, 200)}", key=str(checkpoint)
    )
