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
    """Returns the records of metrics.jsonl; empty if the file does not exist.

    A last line that a crash cut off is left out. Raises RunDirectoryError if any other line is not
    a record.
    """
    return [record for _, record in _read(file)]


def parse_line(text: str) -> dict[str, Any] | None:
    """Returns the record in a line of metrics.jsonl; None if it is not a record."""
    try:
        record = parse_json(text)
    except ValueError:
        return None
    return record if _is_record(record) else None


def metrics_at(lines: list[dict[str, Any]], step: int) -> dict[str, Any]:
    """Returns the metrics of each evaluated split at one step."""
    return {
        line["split"]: {name: value for name, value in line.items() if name not in POSITION}
        for line in lines
        if line["step"] == step and line["split"] != "train"
    }


def remembered(file: Path) -> dict[str, Any]:
    """Returns what a checkpoint remembers of metrics.jsonl: the number of lines and a checksum."""
    return _summary([text for text, _ in _read(file)])


def lines_at(file: Path, state: TrainState, memory: Mapping[str, Any]) -> list[str]:
    """Returns the lines that a run had written when it was in `state`.

    `memory` is what its checkpoint remembers of them. A checkpoint of an older version remembers
    nothing; then these are the lines up to its step. Raises RunDirectoryError if they have changed.
    """
    records = _read(file)
    if not state.step:
        return []  # step 0 measures the baseline again
    if memory:
        kept = [text for text, _ in records[: _number(memory)]]
        if _summary(kept) != memory:
            raise RunDirectoryError(
                f"{file}: its lines up to step {state.step} are not those that the run wrote",
                key=str(file),
                hint="restore the file, or remove it to continue without them",
            )
        return kept
    last_steps = {"train": state.step}  # for other splits, the last step that was evaluated
    return [
        text
        for text, line in records
        if line["step"] <= last_steps.get(line["split"], state.evaluated_step)
    ]


def known_lines(file: Path, memory: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the records that a checkpoint remembers; empty if they have changed.

    A checkpoint of an older version remembers nothing; then all records are returned.
    """
    if not memory:
        return read_lines(file)
    try:
        records = _read(file)[: _number(memory)]
    except RunDirectoryError:
        return []
    unchanged = _summary([text for text, _ in records]) == memory
    return [line for _, line in records] if unchanged else []


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
            f"{file} cannot be read ({excerpt(reason(error))})",
            key=str(file),
            hint="restore the file, or remove it to continue without its lines",
        ) from error
    *complete, last = text.split("\n")
    records: list[tuple[str, dict[str, Any]]] = []
    for number, line in enumerate([*complete, *[last] * bool(last)], start=1):
        try:
            record = parse_json(line)
        except ValueError as error:
            if number > len(complete):
                break  # a crash cut it off
            raise _wrong(file, number, "not JSON") from error
        if not _is_record(record):
            raise _wrong(file, number, "not a record of a step")
        records.append((line, record))
    return records


def _wrong(file: Path, number: int, what: str) -> RunDirectoryError:
    return RunDirectoryError(
        f"{file}, line {number}: {what}",
        key=str(file),
        value=number,
        hint="restore the file, or remove it to continue without its lines",
    )


def _is_record(value: Any) -> bool:
    """Returns whether a line has all values that are read from it, in the right types."""
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
    if not all(type(count) is int and 0 <= count < 2**63 for count in counts):
        return False
    if value["epoch"] > value["step"]:
        return False
    return all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
