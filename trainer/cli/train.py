"""`trainer train`: trains a recipe, with signal handlers, progress on the terminal, exit code."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.cli.options import DEBUG, RECIPE, SET, SMOKE, DirectoryName
from trainer.errors import DONE, ConfigError
from trainer.process import signals

if TYPE_CHECKING:
    from trainer.tasks.recipe import Recipe


@click.command("train")
@RECIPE
@SET
@click.option("--run-dir", type=DirectoryName(), help="Default: runs/<recipe name>.")
@click.option(
    "--resume",
    default="auto",
    metavar="auto|never|PATH",
    help="Continue the run directory, refuse one with a run, or start from a checkpoint.",
)
@click.option(
    "--time-limit",
    metavar="DURATION",
    help="Save and stop before this time is over, with exit code 85: 45m, 2h, 1:30:00.",
)
@SMOKE
@click.option(
    "--dry-run",
    is_flag=True,
    help="Try the longest examples, show the peak of memory, and leave no run directory.",
)
@DEBUG
def command(
    recipe: str,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: str,
    time_limit: str | None,
    smoke: bool,
    dry_run: bool,
) -> int:
    """Train RECIPE, a shipped recipe's name or a YAML file."""
    if not dry_run:
        signals.expect()
    from trainer.api import default_directory

    directory = run_dir or default_directory(recipe, "-smoke" * smoke)
    if dry_run:
        without = {"--resume": resume if resume != "auto" else None, "--time-limit": time_limit}
        for option, value in without.items():
            if value is not None:
                raise ConfigError(
                    f"{option} does not apply to --dry-run, which takes two steps",
                    key=option,
                    value=value,
                    hint="leave it out",
                )
        return try_out(recipe, overrides, directory, in_miniature=smoke)
    return train(recipe, overrides, directory, resume, time_limit=time_limit, in_miniature=smoke)


def try_out(
    recipe_name: str, overrides: tuple[str, ...], directory: Path, *, in_miniature: bool
) -> int:
    """Takes steps of a recipe on its longest examples, and returns the exit code.

    Nothing is written into the directory. Raises TrainerError for errors that the user can fix.
    """
    from trainer.distributed.environment_variables import check_variables
    from trainer.process.environment import quieted_libraries
    from trainer.running.dry_run import dry_run_recipe
    from trainer.tracking.progress import TerminalProgress

    with quieted_libraries():
        check_variables()
        recipe = _recipe(recipe_name, overrides, in_miniature=in_miniature)
        dry_run_recipe(recipe, directory.absolute(), progress=TerminalProgress())
    return DONE


def _recipe(name: str, overrides: tuple[str, ...], *, in_miniature: bool) -> "Recipe":
    from trainer.tasks.recipe import load_recipe

    recipe = load_recipe(name, overrides)
    if not in_miniature:
        return recipe
    from trainer.assembly.miniature import smoke

    return smoke(recipe)


def train(
    recipe_name: str,
    overrides: tuple[str, ...],
    directory: Path,
    resume: str,
    *,
    time_limit: str | None = None,
    in_miniature: bool = False,
) -> int:
    """Trains a recipe in its run directory and returns the exit code; status.json is written last.

    Raises TrainerError for errors that the user can fix, and Stopped if there is nothing to save.
    """
    from trainer.distributed.environment_variables import check_variables
    from trainer.process.environment import quieted_libraries
    from trainer.process.status import Status
    from trainer.process.stop_request import StopRequest, end_of_time, listen
    from trainer.running.train import train_recipe
    from trainer.tracking.progress import TerminalProgress

    directory = directory.absolute()
    with quieted_libraries(), ExitStack() as stack:
        stop = StopRequest()
        status = Status(directory, stop)
        stack.enter_context(listen(stop, status.give_up))
        stack.enter_context(status.reported())
        check_variables()
        stop.end = end_of_time(time_limit)
        recipe = _recipe(recipe_name, overrides, in_miniature=in_miniature)
        result = train_recipe(
            recipe, directory, resume, status=status, stop=stop, progress=TerminalProgress()
        )
    return DONE if result.state == "done" else stop.code
