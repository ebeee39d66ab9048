"""The command `trainer` run in this process: what it prints and how it ends."""

from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from click.testing import CliRunner
from packaging.version import Version

from trainer.cli.app import main

SEPARATE = Version(version("click")) >= Version("8.2")
"""Whether click keeps stdout and stderr apart unless told otherwise, and both in `output`."""


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it wrote."""

    exit_code: int
    exception: BaseException | None
    stdout: str
    stderr: str
    output: str
    """Both streams: in the order of writing, or with click before 8.2 one after the other."""


def invoke(*arguments: object, answers: str | None = None) -> Ended:
    """Returns how `trainer` ended with these arguments.

    `answers` is what it reads from standard input.
    """
    settings: dict[str, Any] = {} if SEPARATE else {"mix_stderr": False}
    done = CliRunner(**settings).invoke(main, [str(item) for item in arguments], input=answers)
    output = done.output if SEPARATE else done.stdout + done.stderr
    return Ended(done.exit_code, done.exception, done.stdout, done.stderr, output)


def run(*arguments: object, code: int = 0) -> str:
    """Returns the output of `trainer`, and fails unless it exits with `code`."""
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    return done.output
