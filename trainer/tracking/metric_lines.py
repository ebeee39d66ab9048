"""The lines of metrics.jsonl: read strictly, and compared with what a checkpoint remembers."""

import hashlib
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.errors import RunDirectoryError
from trainer.files.plain import parse_json, read_text, reason
from trainer.state import TrainState
from trainer.wording import excerpt

POSITION = ("step", "epoch", "split", "train_loss", "peak_memory_bytes")


def read_lines(file: Path) -> list[dict[str, Any]]:
    """Returns the records of metrics.jsonl, none where it is not there; a last line that a crash
    has cut off is left out.

    Raises RunDirectoryError for any other line that is no record.
    """
    return [record for _, record in _read(file)]


def metrics_at(lines: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """Returns the metrics of each evaluated split at one step."""
    return {
        line["split"]: {name: value for name, value in line.items() if name not in POSITION}
        for line in lines
        if line["step"] == step and line["split"] != "train"
    }


def remembered(file: Path) -> dict[str, Any]:
    """Returns number and checksum of the lines in metrics.jsonl, for a checkpoint to remember."""
    return _summary([text for text, _ in _read(file)])


def lines_at(file: Path, state: TrainState, memory: Mapping[str, Any]) -> list[str]:
    """Returns the lines that were there in a state: those that a checkpoint remembers or, with one
    of an older version, which remembers none, those up to its step.

    Raises RunDirectoryError where they are not there any more as they were.
    """
    found = _read(file)
    if not state.step:
        return []  # a baseline that was not continued is taken again
    if memory:
        kept = [text for text, _ in found[: _number(memory)]]
        if _summary(kept) != memory:
            raise RunDirectoryError(
                f"{file}: its lines up to step {state.step} are not those that the run wrote; "
                f"restore the file, or remove it to go on without them"
            )
        return kept
    lasts = {"train": state.step}  # of other splits, the last step that was evaluated
    return [
        text
        for text, line in found
        if line["step"] <= lasts.get(line["split"], state.evaluated_step)
    ]


def known_lines(file: Path, memory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the records that a checkpoint remembers; none where they are not as they were, and
    all of them where it is of an older version and remembers none."""
    if not memory:
        return read_lines(file)
    try:
        found = _read(file)[: _number(memory)]
    except RunDirectoryError:
        return []
    return [line for _, line in found] if _summary([one for one, _ in found]) == memory else []


def _number(memory: Mapping[str, Any]) -> int:
    lines = memory.get("lines")
    return lines if type(lines) is int and lines >= 0 else 0


def _summary(lines: list[str]) -> dict[str, Any]:
    digest = hashlib.sha256("".join(f"{line}\n" for line in lines).encode())
    return {"lines": len(lines), "sha256": digest.hexdigest()}


def _read(file: Path) -> list[tuple[str, dict[str, Any]]]:
    """Returns each line as text and as a record."""
    try:
        text = read_text(file)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunDirectoryError(
            f"{file} cannot be read ({excerpt(reason(error))}); restore the file, or remove it to "
            f"go on without its lines"
        ) from error
    *complete, last = text.split("\n")
    records: list[tuple[str, dict[str, Any]]] = []
    for number, line in enumerate([*complete, *[last] * bool(last)], start=1):
        try:
            record = parse_json(line)
        except ValueError as error:
            if number > len(complete):
                break  # a crash cut it off
            raise _wrong(file, number, "no JSON") from error
        if not _is_record(record):
            raise _wrong(file, number, "no record of a step")
        records.append((line, record))
    return records


def _wrong(file: Path, number: int, what: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{file}, line {number}: {what}; restore the file, or remove it to go on without its lines"
    )


def _is_record(value: Any) -> bool:
    """Returns whether a line has what is read of it."""
    if not isinstance(value, dict) or not isinstance(value.get("split"), str):
        return False
    counts = [value.get("step"), value.get("epoch")]
    numbers: list[Any] = [value.get("seconds")]
    if value["split"] == "train":
        numbers.append(value.get("tokens_per_second"))
    else:
        counts.append(value.get("peak_memory_bytes"))
        loss = value.get("train_loss", "")
        numbers += [] if loss is None else [loss]
    if not all(type(one) is int and 0 <= one < 2**63 for one in counts):
        return False
    if value["epoch"] > value["step"]:
        return False
    return all(type(one) in (int, float) and math.isfinite(one) for one in numbers)
