"""What the record of an export says, in sentences."""

from pathlib import Path
from typing import Any

from trainer.exports.fingerprints import RECORD
from trainer.files.plain import read_json
from trainer.wording import format_bytes


def sentences(folder: Path) -> list[str]:
    """Returns what was exported to a folder, whether it was verified, and the notes."""
    record = read_json(folder / RECORD)
    part: dict[str, Any] = record["model"] or record["adapter"]
    kind = "model" if record["model"] is not None else "adapters"
    size = sum(file["bytes"] for file in part["files"].values())
    found = [f"{folder}: the {kind} of step {record['step']}, {format_bytes(size)}"]
    if not record["verified"]:
        found.append(f"not verified in a fresh process: {record['why_not']}")
    elif part["difference"] is None:  # the task of another package, whose outputs have other names
        found.append("a fresh process loads it")
    else:
        found.append(
            f"a fresh process gives the logits of the run: {part['statistic']} difference "
            f"{part['difference']:.1e} of their standard deviation, {part['bound']:g} is allowed"
        )
    return [*found, *(f"note: {note}" for note in record["notes"])]
