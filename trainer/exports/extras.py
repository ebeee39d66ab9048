"""Packages that only some exports need."""

import importlib
from typing import Any

from trainer.errors import ConfigError


def needs(package: str, option: str, extra: str) -> Any:
    """Returns an installed package; raises ConfigError, with the command that installs it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(
            f"{option} needs the package {package}, which is not installed",
            key=option,
            value=package,
            hint=f"pip install 'trainer[{extra}]'",
        ) from error
