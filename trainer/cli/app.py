"""The command line: its commands, and how they end.

A command returns an exit code or raises. Only this file prints errors and ends the process.
"""

import logging
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from typing import NoReturn

import click

from trainer.cli import (
    chat,
    checkpoints,
    compare,
    doctor,
    evaluate,
    export,
    params,
    plan,
    predict,
    prepare,
    push,
    recipes,
    report,
    show,
    sweep,
    train,
    watch,
)
from trainer.distributed.environment_variables import is_local_main, is_main
from trainer.errors import DONE, INTERRUPTED, WRONG, FileError, Stopped, TrainerError
from trainer.process import outlets, signals
from trainer.process.exit import end
from trainer.wording import visible


class _Messages(logging.Handler):
    """Prints the library's log messages in the same form as errors."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"trainer: {visible(record.getMessage())}", err=True)


@contextmanager
def _printed_log() -> Generator[None]:
    """Context manager: the library's log messages go to stderr, and nowhere else."""
    log, handler = logging.getLogger("trainer"), _Messages()
    propagates = log.propagate
    log.addHandler(handler)
    log.propagate = False  # a library may have given the root logger a handler
    try:
        yield
    finally:
        log.propagate = propagates
        log.removeHandler(handler)


class Commands(click.Group):
    """A group that ends the process with the exit code of the command it ran.

    A TrainerError is one sentence on stderr and code 2; with --debug, its traceback.
    """

    def invoke(self, ctx: click.Context) -> NoReturn:
        try:
            with _printed_log():
                code: int = super().invoke(ctx) or DONE
            _check_output(ctx)
        except (click.ClickException, click.Abort, click.exceptions.Exit):
            raise
        except TrainerError as error:
            _end(_report(error, ctx))
        except Stopped as stopped:
            if is_main():
                click.echo(f"trainer: {stopped}", err=True)
            _end(stopped.code)
        except KeyboardInterrupt:
            click.echo("trainer: interrupted", err=True)
            _end(INTERRUPTED)
        except Exception as error:
            from trainer.process.library_errors import as_user_error

            known = as_user_error(error)
            if known is None:
                raise
            _end(_report(known, ctx))
        _end(code)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trainer")
def main() -> None:
    """Trains language models: the same numbers on one process, several GPUs or many nodes."""


for _command in (
    *(train.command, evaluate.command, recipes.command, show.command, params.command),
    *(prepare.command, sweep.command, compare.command, report.command, checkpoints.command),
    *(watch.command, plan.command, predict.command, chat.command, export.command, push.command),
    doctor.command,
):
    main.add_command(_command)


def _report(error: TrainerError, ctx: click.Context) -> int:
    """Prints an error, once per machine, and returns the exit code."""
    if ctx.meta.get("debug"):
        click.echo(traceback.format_exc(), err=True, nl=False)
    elif is_local_main():
        click.echo(f"trainer: {visible(str(error))}", err=True)
    return WRONG


def _check_output(ctx: click.Context) -> None:
    """Raises FileError if a full disk lost the output of a command, other than a run's log."""
    lost = outlets.lost_output()
    if lost is not None and ctx.invoked_subcommand != "train":
        from trainer.files.file_errors import remedy

        raise FileError(
            f"standard output cannot be written: {lost.strerror}",
            key="stdout",
            value=lost.errno,
            hint=remedy(lost),
        )


def _end(code: int) -> NoReturn:
    """Ends the process with `code`, which signals can no longer change."""
    signals.begin_shutdown()
    end(code)
