"""The sessions of a run in environment.json: its start, and each time that it was resumed."""

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from trainer.errors import RunDirectoryError
from trainer.files.durable import write_json
from trainer.files.plain import read_json
from trainer.process.energy import energy_counter
from trainer.process.environment import TIME, describe_environment
from trainer.process.run_entries import writing_to

FILE = "environment.json"
Session = dict[str, Any]
"""`started`, `step` (the optimizer steps taken before), `command`, `processes` and `host`; once it
has stopped or finished training, also `ended` and, if NVML counts it, `energy_joules`."""


def write_environment(directory: Path) -> None:
    """Writes environment.json for this command; the sessions of earlier ones stay in it."""
    sessions = recorded_sessions(directory)
    with writing_to(directory):
        write_json(directory / FILE, {**describe_environment(), "sessions": sessions})


def recorded_environment(directory: Path) -> dict[str, Any]:
    """Returns environment.json; empty if it is missing or cannot be read."""
    try:
        environment = read_json(directory / FILE)
    except (OSError, ValueError):
        return {}
    return cast(dict[str, Any], environment) if isinstance(environment, dict) else {}


def recorded_sessions(directory: Path) -> list[Session]:
    """Returns the sessions in environment.json, in their order.

    The file of an older version has no list of them, and describes the last one: that is returned
    without what it does not say. Empty if the file is missing or cannot be read.
    """
    environment = recorded_environment(directory)
    sessions: Any = environment.get("sessions")
    if isinstance(sessions, list):
        listed = cast(list[Any], sessions)
        return [cast(Session, session) for session in listed if isinstance(session, dict)]
    keys = ("started", "command", "processes")
    return [{key: environment[key] for key in keys if key in environment}] * bool(environment)


def begin_session(directory: Path, step: int) -> float | None:
    """Adds this command to the sessions of a run that has taken `step` steps.

    Returns the energy counter of its GPUs, for `end_session`.
    """
    environment = recorded_environment(directory)
    session = {
        "started": environment.get("started"),
        "step": step,
        "command": environment.get("command"),
        "processes": environment.get("processes"),
        "host": socket.gethostname(),
    }
    _write(directory, environment, [*recorded_sessions(directory), session])
    return energy_counter()


def end_session(directory: Path, energy_before: float | None) -> None:
    """Notes the time, and the energy since `begin_session` returned `energy_before`.

    If the disk is full or gone, environment.json stays as it was, so that the end of the session is
    still reported.
    """
    sessions = recorded_sessions(directory)
    if not sessions:
        return
    sessions[-1]["ended"] = time.strftime(TIME)
    energy = energy_counter()
    if energy is not None and energy_before is not None:
        sessions[-1]["energy_joules"] = energy - energy_before
    with suppress(OSError, RunDirectoryError):
        _write(directory, recorded_environment(directory), sessions)


def _write(directory: Path, environment: dict[str, Any], sessions: list[Session]) -> None:
    with writing_to(directory):
        write_json(directory / FILE, {**environment, "sessions": sessions})
