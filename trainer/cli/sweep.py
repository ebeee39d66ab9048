"""`trainer sweep`: trains a recipe once per cell of a grid, or prints the commands."""

import os
import shlex
import sys
from pathlib import Path

import click

from trainer.cli.grid import cell_names, grid
from trainer.cli.options import DEBUG, RECIPE, SET, SMOKE, DirectoryName
from trainer.errors import DONE, ConfigError, LaunchError, TrainerError
from trainer.process import signals
from trainer.wording import together


@click.command("sweep")
@RECIPE
@click.option("--seeds", metavar="1,2,3", help="Seeds, separated by commas.")
@click.option(
    "--vary",
    multiple=True,
    metavar="KEY.PATH=VALUE,VALUE",
    help="Values of a key; several --vary give every combination.",
)
@SET
@click.option("--run-dir", type=DirectoryName(), help="Default: runs/<recipe name>-sweep.")
@click.option(
    "--launcher", metavar="COMMAND", help="For example 'accelerate launch --num_processes 2'."
)
@click.option(
    "--print", "print_only", is_flag=True, help="Print the commands, one per line, and run nothing."
)
@SMOKE
@DEBUG
def command(
    recipe: str,
    seeds: str | None,
    vary: tuple[str, ...],
    overrides: tuple[str, ...],
    run_dir: Path | None,
    launcher: str | None,
    print_only: bool,
    smoke: bool,
) -> int:
    """Train RECIPE for every seed and value, one run after the other; run it again to resume."""
    signals.expect()
    from trainer.api import default_directory

    return sweep(
        recipe,
        overrides,
        seeds=seeds,
        vary=vary,
        directory=run_dir or default_directory(recipe, "-sweep" + "-smoke" * smoke),
        launcher=launcher,
        print_only=print_only,
        smoke=smoke,
    )


def sweep(
    recipe_name: str,
    overrides: tuple[str, ...],
    *,
    seeds: str | None,
    vary: tuple[str, ...],
    directory: Path,
    launcher: str | None,
    print_only: bool,
    smoke: bool,
) -> int:
    """Trains every cell of the grid in a folder inside `directory`, and returns the exit code.

    Calling it again resumes the sweep, without training finished runs again. The first run that
    ends with a code other than 0 ends the sweep with that code. `launcher`, such as "accelerate
    launch --num_processes 2", starts each run. With `print_only` the commands are printed, one per
    line, and nothing runs. Before the first run starts, raises ConfigError with the problems of all
    cells.
    """
    from trainer.distributed.environment_variables import check_variables

    check_variables()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise LaunchError(
            "a sweep starts the ranks itself",
            key="WORLD_SIZE",
            value=os.environ["WORLD_SIZE"],
            hint="run it alone and give it --launcher",
        )
    cells = grid(seeds, vary)
    for override in overrides:
        if (key := override.partition("=")[0]) in cells[0]:
            raise ConfigError(
                f"--set {override}: the sweep varies {key}",
                key=key,
                value=override,
                hint="leave out either --set or --vary",
            )
    settings = {
        name: (*overrides, *(f"{key}={value}" for key, value in cell.items()))
        for name, cell in zip(cell_names(cells), cells, strict=True)
    }
    _check(recipe_name, settings, directory, smoke)
    start = _start(launcher) or (["trainer"] if print_only else [sys.executable, "-m", "trainer"])
    commands = {
        name: [
            *(*start, "train", recipe_name),
            *(word for setting in cell_settings for word in ("--set", setting)),
            *("--run-dir", str(directory / name)),
            *(["--smoke"] if smoke else []),
        ]
        for name, cell_settings in settings.items()
    }
    if print_only:
        print("\n".join(shlex.join(words) for words in commands.values()))
        return DONE
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"--run-dir {directory} cannot be created: {error.strerror}",
            key="--run-dir",
            value=str(directory),
        ) from error
    return _run(commands, directory)


def _check(
    recipe_name: str, settings: dict[str, tuple[str, ...]], directory: Path, smoke: bool
) -> None:
    """Raises ConfigError with every problem of the cells."""
    from trainer.process.run_directory import check_recipe
    from trainer.tasks.recipe import Recipe, load_recipe

    recipes: dict[str, Recipe] = {}
    problems: list[str] = []
    if (directory / "config.yaml").is_file():
        problems.append(f"{directory} is a run of its own; give the sweep another --run-dir")
    for name, overrides in settings.items():
        try:
            recipe = load_recipe(recipe_name, overrides)
            if not smoke and _begun(directory / name):
                check_recipe(directory / name, recipe)
        except TrainerError as error:
            problems.append(str(error))
            continue
        problems += [
            f"{earlier} and {name} are the same recipe; leave out one of the two"
            for earlier, earlier_recipe in recipes.items()
            if earlier_recipe == recipe
        ]
        problems += [
            f"push.repo_id: {earlier} and {name} would push to the same branch of "
            f"{push.repo_id}; vary it, or add --set push=null"
            for earlier, earlier_recipe in recipes.items()
            if (push := recipe.push)
            and earlier_recipe.push
            and push.place == earlier_recipe.push.place
        ][:1]
        recipes[name] = recipe
    if problems:
        raise ConfigError(together("", problems), key="--vary", value=problems)


def _begun(directory: Path) -> bool:
    """Returns whether training in a directory would resume a run rather than start one."""
    from trainer.process.status import read_status

    if not (directory / "config.yaml").is_file():
        return False
    return read_status(directory).get("state") == "done" or any(
        directory.glob("checkpoints/step-*")
    )


def _start(launcher: str | None) -> list[str]:
    """Returns the words of the launcher that precede `train`; empty without a launcher."""
    if launcher is None:
        return []
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise ConfigError(
            f"--launcher {launcher}: a quote is not closed",
            key="--launcher",
            value=launcher,
            hint="close it",
        ) from error
    if not words:
        raise ConfigError(
            "--launcher is empty",
            key="--launcher",
            value=launcher,
            hint="write it as 'accelerate launch' or leave it out",
        )
    return [*words, "-m", "trainer"]


def _run(commands: dict[str, list[str]], directory: Path) -> int:
    from trainer.cli.child import collected_signals, run_child
    from trainer.process.status import read_status

    with collected_signals() as received:
        for position, (name, words) in enumerate(commands.items()):
            print(f"sweep: {name}, {position + 1} of {len(commands)}", flush=True)
            code = run_child(words, directory / name, received)
            if code != DONE:
                status = read_status(directory / name)
                reason = f" ({status['message']})" if status.get("exit_code") == code else ""
                print(
                    f"sweep: {name} ended with code {code}{reason}; {position} of {len(commands)} "
                    f"runs are done, and the same command resumes the sweep here",
                    file=sys.stderr,
                )
                return code
    print(f"compare: {shlex.join(['trainer', 'compare', str(directory)])}")
    print(f"curves:  {shlex.join(['tensorboard', '--logdir', str(directory)])}")
    return DONE
