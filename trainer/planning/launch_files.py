"""The files of a launch: Accelerate's YAML and DeepSpeed's JSON. Raises ConfigError for others."""

import json
from pathlib import Path
from typing import Any

import yaml

from trainer.errors import ConfigError
from trainer.wording import excerpt

CONFIG = "--config"
MOST = 10**15
"""The largest number that is read from a file."""


def read_launch(path: Path) -> dict[str, Any]:
    """Returns the values of an Accelerate YAML."""
    values = _parsed(path, yaml.safe_load, "YAML")
    if not isinstance(values, dict) or "distributed_type" not in values:
        raise _unreadable(path, "is not a launch configuration of Accelerate")
    return values


def read_deepspeed(path: Path, named: str) -> dict[str, Any]:
    """Returns the section zero_optimization of a DeepSpeed JSON, which the YAML calls `named`."""
    values = _parsed(path, json.loads, "JSON", named)
    zero = values.get("zero_optimization", {}) if isinstance(values, dict) else None
    if not isinstance(zero, dict):
        raise _unreadable(named, "is not a DeepSpeed configuration")
    return zero


def whole(values: Any, key: str, default: int, least: int = 1) -> int:
    """Returns a whole number, also if it is written 5e8; raises ConfigError for anything else and
    for a number below `least`."""
    value = values.get(key, default) if isinstance(values, dict) else None
    try:
        number = float(value) if isinstance(value, int | float | str) else -1.0
    except (ValueError, OverflowError):
        number = -1.0
    if not least <= number <= MOST or number % 1 or isinstance(value, bool):
        raise ConfigError(
            f"{key}: {excerpt(value)} is not a whole number from {least} to {MOST:.0e}",
            key=key,
            value=value,
            hint=f"use {default}",
        )
    return int(number)


def _parsed(path: Path, parse: Any, kind: str, named: str | None = None) -> Any:
    try:
        return parse(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(named or path, "cannot be read") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unreadable(named or path, f"is not {kind}") from error


def _unreadable(path: Path | str, reason: str) -> ConfigError:
    return ConfigError(
        f"{CONFIG}: {excerpt(path)} {reason}",
        key=CONFIG,
        value=str(path),
        hint="use a file of accelerate_configs/",
    )
