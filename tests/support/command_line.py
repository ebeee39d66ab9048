"""The command `trainer` run in this process: what it prints and how it ends."""

from click.testing import CliRunner, Result

from trainer.cli.app import main


def invoke(*arguments: object, answers: str | None = None) -> Result:
    """Returns how `trainer` ended with these arguments: `exit_code`, `output`, `exception`.

    `answers` is what it reads from standard input.
    """
    return CliRunner().invoke(main, [str(argument) for argument in arguments], input=answers)


def run(*arguments: object, code: int = 0) -> str:
    """Returns the output of `trainer`, and fails unless it exits with `code`."""
    done = invoke(*arguments)
    assert done.exit_code == code, done.output
    return done.output
