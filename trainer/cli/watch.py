"""`trainer watch`: shows the progress of a run that trains elsewhere."""

from pathlib import Path

import click

from trainer.cli.options import DEBUG, RUN_DIR


@click.command("watch")
@RUN_DIR
@click.option(
    "--interval",
    metavar="SECONDS",
    type=click.FloatRange(min=0.05),
    default=2.0,
    show_default=True,
    help="Time between two looks at the files.",
)
@DEBUG
def command(run_dir: Path, interval: float) -> int:
    """Show the progress of the run in RUN_DIR until it ends; exit with its exit code.

    The run may train on another machine that shares the directory, or may not have begun yet.
    Ctrl-C ends the command, and not the run.
    """
    from trainer.process.following import follow
    from trainer.tracking.progress import TerminalProgress

    code, message = follow(run_dir, TerminalProgress(), interval)
    print(message)
    return code
