"""The command line: thin commands over trainer.cli.commands, and the exit codes."""

import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import click

from trainer.errors import (
    INTERRUPTED,
    WRONG,
    FileError,
    Stopped,
    TrainerError,
)
from trainer.process import outlets, signals
from trainer.wording import excerpt


class DirectoryName(click.Path):
    """A path of a directory that may not exist yet, but could."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path = Path(os.fspath(value))
        try:
            if not os.fspath(value) or (path.exists() and not path.is_dir()):
                self.fail(f"{excerpt(value)!r} is not a directory", param, ctx)
        except (OSError, ValueError) as error:  # a name that is too long, a NUL
            reason = getattr(error, "strerror", None) or str(error)
            self.fail(f"{excerpt(value)!r}: {reason}", param, ctx)
        return path


RECIPE = click.argument("recipe")
SET = click.option(
    "--set", "overrides", multiple=True, metavar="KEY.PATH=VALUE", help="Override one value."
)
SMOKE = click.option(
    "--smoke", is_flag=True, help="The whole path in seconds: a tiny random model, built-in data."
)
RUN_DIR = click.argument("run_dir", type=DirectoryName())
DEBUG = click.option("--debug", is_flag=True, help="Show the traceback of an error.")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="trainer")
def main() -> None:
    """Trains language models: the same numbers on one process, several GPUs or many nodes."""


@main.command()
@RECIPE
@SET
@click.option("--run-dir", type=DirectoryName(), help="Default: runs/<recipe name>.")
@click.option(
    "--resume",
    default="auto",
    metavar="auto|never|PATH",
    help="Continue the run directory, refuse to, or start from a checkpoint.",
)
@click.option(
    "--time-limit",
    metavar="DURATION",
    help="Save and stop in time, with code 85: 45m, 2h, 1:30:00.",
)
@SMOKE
@DEBUG
def train(
    recipe: str,
    overrides: tuple[str, ...],
    run_dir: Path | None,
    resume: str,
    time_limit: str | None,
    smoke: bool,
    debug: bool,
) -> None:
    """Train RECIPE, a shipped recipe's name or a YAML file."""

    def command() -> int:
        signals.expect()
        from trainer.cli.commands import train

        directory = run_dir or Path("runs") / (_name_of(recipe) + "-smoke" * smoke)
        return train(
            recipe, overrides, directory, resume, time_limit=time_limit, in_miniature=smoke
        )

    _run(command, debug)


@main.command()
@RUN_DIR
@click.option("--checkpoint", default="best", metavar="best|last|STEP", show_default=True)
@click.option("--split", default="validation", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@DEBUG
def evaluate(run_dir: Path, checkpoint: str, split: str, as_json: bool, debug: bool) -> None:
    """Evaluate a checkpoint of RUN_DIR on one split."""

    def command() -> int:
        from trainer.cli.commands import evaluate

        return evaluate(run_dir, checkpoint, split, as_json)

    _run(command, debug)


@main.command()
def recipes() -> None:
    """List the shipped recipes."""

    def command() -> int:
        from trainer.recipe.shipped import shipped_recipes

        names = shipped_recipes()
        for name, purpose in names.items():
            click.echo(f"{name:<{max(map(len, names))}}  {purpose}")
        return 0

    _run(command, debug=False)


@main.command()
@RECIPE
@SET
@DEBUG
def show(recipe: str, overrides: tuple[str, ...], debug: bool) -> None:
    """Print the resolved, complete RECIPE and stop."""

    def command() -> int:
        from trainer.recipe.reading import dump_yaml
        from trainer.tasks.recipe import load_recipe

        click.echo(dump_yaml(load_recipe(recipe, overrides)), nl=False)
        return 0

    _run(command, debug)


@main.command()
@RECIPE
@SET
@click.option("--full", is_flag=True, help="Show every layer, also those that are alike.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@DEBUG
def params(recipe: str, overrides: tuple[str, ...], full: bool, as_json: bool, debug: bool) -> None:
    """Count the parameters of RECIPE's model by module, without its weights."""

    def command() -> int:
        from trainer.cli.commands import params

        return params(recipe, overrides, full=full, as_json=as_json)

    _run(command, debug)


@main.command()
@RECIPE
@SET
@DEBUG
def prepare(recipe: str, overrides: tuple[str, ...], debug: bool) -> None:
    """Fetch model, tokenizer and data of RECIPE, and tokenise, so that train needs no network."""

    def command() -> int:
        from trainer.cli.commands import prepare

        return prepare(recipe, overrides)

    _run(command, debug)


@main.command()
@RECIPE
@click.option("--seeds", metavar="1,2,3", help="Seeds, with a comma between two.")
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY.PATH=VALUE,VALUE",
    help="Values of a key; several multiply.",
)
@SET
@click.option("--run-dir", type=DirectoryName(), help="Default: runs/<recipe name>-sweep.")
@click.option(
    "--launcher", metavar="COMMAND", help="Such as 'accelerate launch --num_processes 2'."
)
@click.option(
    "--print", "print_only", is_flag=True, help="Print the commands, one a line; run none."
)
@SMOKE
@DEBUG
def sweep(
    recipe: str,
    seeds: str | None,
    vary: tuple[str, ...],
    overrides: tuple[str, ...],
    run_dir: Path | None,
    launcher: str | None,
    print_only: bool,
    smoke: bool,
    debug: bool,
) -> None:
    """Train RECIPE for every seed and value, one run after the other; again, it goes on."""

    def command() -> int:
        signals.expect()
        from trainer.cli.sweep import sweep

        return sweep(
            recipe,
            overrides,
            seeds=seeds,
            vary=vary,
            directory=run_dir or Path("runs") / (_name_of(recipe) + "-sweep" + "-smoke" * smoke),
            launcher=launcher,
            print_only=print_only,
            smoke=smoke,
        )

    _run(command, debug)


@main.command()
@click.argument("run_dirs", nargs=-1, required=True, type=DirectoryName())
@click.option("--by", metavar="KEY.PATH", help="Group by this key; else by all but the seed.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@DEBUG
def compare(run_dirs: tuple[Path, ...], by: str | None, as_json: bool, debug: bool) -> None:
    """Compare RUN_DIRS, or all runs in a sweep's folder: mean and deviation over seeds."""

    def command() -> int:
        from trainer.report.comparison import print_comparison

        return print_comparison(run_dirs, by, as_json)

    _run(command, debug)


@main.group()
def checkpoints() -> None:
    """List, verify or prune the checkpoints of a run."""


@checkpoints.command("ls")
@RUN_DIR
@click.option("--json", "as_json", is_flag=True, help="Print one JSON list.")
@DEBUG
def list_(run_dir: Path, as_json: bool, debug: bool) -> None:
    """List the checkpoints of RUN_DIR: size, metric, processes, and whether they are complete."""

    def command() -> int:
        from trainer.cli.checkpoints import list_checkpoints

        return list_checkpoints(run_dir, as_json)

    _run(command, debug)


@checkpoints.command()
@RUN_DIR
@DEBUG
def verify(run_dir: Path, debug: bool) -> None:
    """Compare all files of RUN_DIR's checkpoints with their checksums; code 2 where one differs."""

    def command() -> int:
        from trainer.cli.checkpoints import verify_checkpoints

        return verify_checkpoints(run_dir)

    _run(command, debug)


@checkpoints.command()
@RUN_DIR
@click.option("--keep-last", type=click.IntRange(min=1), help="Default: that of the recipe.")
@DEBUG
def prune(run_dir: Path, keep_last: int | None, debug: bool) -> None:
    """Remove what RUN_DIR keeps no longer, what is damaged, and what dead runs have left."""

    def command() -> int:
        from trainer.cli.checkpoints import prune_checkpoints

        return prune_checkpoints(run_dir, keep_last)

    _run(command, debug)


def _name_of(recipe: str) -> str:
    """Returns the name of a recipe; llama-3.2-1b has a dot and no suffix."""
    return re.sub(r"\.ya?ml$", "", Path(recipe).name)


def _run(command: Callable[[], int], debug: bool) -> None:
    """Runs a command and exits: a TrainerError is one sentence on stderr and code 2."""
    try:
        code = command()
        _check_output()
    except TrainerError as error:
        _end(_told(error, debug))
    except Stopped as stopped:
        if os.environ.get("RANK", "0") == "0":
            click.echo(f"trainer: {stopped}", err=True)
        _end(stopped.code)
    except KeyboardInterrupt:
        click.echo("trainer: interrupted", err=True)
        _end(INTERRUPTED)
    except Exception as error:
        from trainer.process.library_errors import in_a_sentence

        told = in_a_sentence(error)
        if told is None:
            raise
        _end(_told(told, debug))
    signals.settle()
    sys.exit(code)


def _told(error: TrainerError, debug: bool) -> int:
    """Says what is wrong, once on each machine, and returns the exit code."""
    from trainer.distributed.environment_variables import speaks

    if debug:
        traceback.print_exc()
    elif speaks():
        click.echo(f"trainer: {error}", err=True)
    return WRONG


def _check_output() -> None:
    """Raises FileError where a command's output, other than a run's, is lost on a full disk."""
    lost = outlets.lost_output()
    if lost is not None and sys.argv[1:2] != ["train"]:
        from trainer.files.file_errors import remedy

        raise FileError(f"standard output cannot be written: {lost.strerror}; {remedy(lost)}")


def _end(code: int) -> NoReturn:
    """Ends with an error; in good order a rank of several could wait for others that left."""
    signals.settle()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
