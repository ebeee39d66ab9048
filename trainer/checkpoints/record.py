"""What a checkpoint says of itself: the manifest of its files, and the numbers of the run."""

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.checkpoints.shards import fingerprint
from trainer.errors import CheckpointError
from trainer.files.durable import flush, write_text
from trainer.files.plain import is_changed, read_json, reason, sealed, write_new
from trainer.state import TrainState
from trainer.wording import excerpt, listed

MANIFEST, RECORD = "manifest.json", "state.json"
NAMED = re.compile(r"(?:\.replaced-(?=.*-)|step-(?!.*-))([0-9]{8})(?:-.+)?")
"""Names of checkpoints, and of those that a run which died was about to replace."""


def read_manifest(checkpoint: Path) -> dict[str, Any]:
    """Returns what a checkpoint says of itself: `files` with fingerprints, and `resumable`.

    Raises CheckpointError where it says nothing, or what no run has written.
    """
    try:
        manifest = read_json(checkpoint / MANIFEST)
        if not isinstance(manifest, dict):
            raise ValueError(f"{MANIFEST} is no mapping")
        if "resumable" not in manifest:
            raise CheckpointError(f"{checkpoint} was written by an older version, in another form")
        if is_changed(manifest):
            raise ValueError(f"{MANIFEST} was changed after it was written")
        files = manifest.get("files")
        if not isinstance(files, dict) or not isinstance(manifest["resumable"], bool):
            raise ValueError(f"{MANIFEST} is of another form")
        for name, expected in files.items():
            if Path(name).name != name or name in ("", ".."):
                raise ValueError(f"{MANIFEST} names {excerpt(name, 60)}, which is no file in it")
            if not _is_fingerprint(expected):
                raise ValueError(f"{MANIFEST} has no size and checksum of {excerpt(name, 60)}")
        if RECORD not in files:
            raise ValueError(f"{MANIFEST} does not list {RECORD}")
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{checkpoint} is no complete checkpoint: {excerpt(_named(error), 200)}"
        ) from error
    return {"resumable": manifest["resumable"], "files": dict(files)}


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    write_text(folder / MANIFEST, json.dumps(sealed(manifest), indent=2))
    flush(folder / MANIFEST)


def verify(checkpoint: Path, *, resumable: bool = False) -> None:
    """Raises CheckpointError unless each file has the size and the checksum of the manifest, and
    the numbers are those of the step that names the folder.

    With `resumable`, also where it holds weights only.
    """
    manifest = read_manifest(checkpoint)
    try:
        files = manifest["files"].items()
        wrong = [name for name, expected in files if fingerprint(checkpoint / name) != expected]
    except OSError as error:
        raise CheckpointError(
            f"{checkpoint} is no complete checkpoint: {excerpt(_named(error), 200)}"
        ) from error
    if wrong:
        raise CheckpointError(f"{checkpoint} was changed after it was written: {listed(wrong, 3)}")
    read_record(checkpoint)
    if resumable and not manifest["resumable"]:
        raise CheckpointError(
            f"{checkpoint} holds weights only, for moments are kept of the last ones; no run goes "
            f"on from it"
        )


def write_record(
    folder: Path,
    *,
    state: TrainState,
    loss_scale: Mapping[str, float] | None,
    order_digest: str,
    launch: Mapping[str, Any],
    ends_epoch: bool,
    **written_with: Any,
) -> None:
    """Writes the numbers of a checkpoint, and what it was `written_with`, to compare it later."""
    record = {
        "state": state.as_dict(),
        "order_digest": order_digest,
        "launch": dict(launch),
        "loss_scale": loss_scale,
        "ends_epoch": ends_epoch,
        **written_with,
    }
    write_new(folder / RECORD, json.dumps(sealed(record), indent=2))
    flush(folder / RECORD)


def read_record(checkpoint: Path) -> dict[str, Any]:
    """Returns the numbers of a checkpoint.

    Raises CheckpointError unless they can be those of a run at the step that names the folder.
    """
    file = checkpoint / RECORD
    try:
        record = read_json(file)
        if not isinstance(record, dict):
            raise ValueError("it is no mapping")
        if is_changed(record):
            raise ValueError("it was changed after it was written")
        state = TrainState.of(record.get("state"))
        named = NAMED.fullmatch(checkpoint.name)
        if named is None or int(named[1]) != state.step:
            raise ValueError(f"it is of step {state.step}, and the folder's name is of another")
        for key, kind in (("order_digest", str), ("launch", dict), ("ends_epoch", bool)):
            if not isinstance(record.get(key), kind):
                raise ValueError(f"{key} is missing or of another form")
        for key in ("digests", "recipe", "metrics"):  # which older versions do not write
            if not isinstance(record.setdefault(key, {}), dict):
                raise ValueError(f"{key} is of another form")
        if record.get("loss_scale") is not None and not _is_loss_scale(record["loss_scale"]):
            raise ValueError("loss_scale is of another form")
    except (OSError, ValueError) as error:
        why = excerpt(reason(error), 200)
        raise CheckpointError(f"{file} cannot be read: {why}") from error
    return record


def _is_fingerprint(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"bytes", "sha256"}:
        return False
    size = value["bytes"]
    return type(size) is int and size >= 0 and isinstance(value["sha256"], str)


def _is_loss_scale(value: Any) -> bool:
    if not isinstance(value, dict) or value.keys() != {"scale", "steps"}:
        return False
    numbers = [one for one in value.values() if type(one) in (int, float) and math.isfinite(one)]
    return len(numbers) == 2 and value["scale"] > 0 and value["steps"] >= 0


def _named(error: OSError | ValueError) -> str:
    """Returns what is wrong with a file of a checkpoint, and which one it is."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{Path(str(error.filename)).name}: {reason(error)}"
    return reason(error)
