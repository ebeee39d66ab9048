"""Where things are, and the command that starts a program of the tests."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent / "programs"


def program(name: str, *arguments: object) -> list[str]:
    """Returns the command that starts a program of support/programs/ in a process of its own."""
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *map(str, arguments)]
