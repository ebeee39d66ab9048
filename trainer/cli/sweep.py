"""A grid of runs of one recipe: one after the other, resumable, or as commands to run elsewhere."""

import hashlib
import os
import re
import shlex
import sys
from collections import Counter
from itertools import product
from pathlib import Path

from trainer.cli.child import heard_signals, run_child
from trainer.distributed.environment_variables import check_variables
from trainer.errors import (
    DONE,
    ConfigError,
    LaunchError,
    TrainerError,
)
from trainer.process.run_directory import check_recipe
from trainer.process.status import read_status
from trainer.tasks.recipe import Recipe, load_recipe
from trainer.wording import together

MAX_NAME = 200
"""Characters of a directory's name; file systems take 255 bytes."""


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
    """Trains every cell of the grid in its folder of `directory`, and returns the exit code.

    The same call goes on where an earlier one ended; finished runs are not trained anew. A run that
    does not end with 0 ends the sweep with its code. `launcher`, such as "accelerate launch
    --num_processes 2", starts each run. With `print_only` the commands are printed, one a line, and
    nothing runs. Raises ConfigError with the problems of all cells, before the first one starts.
    """
    check_variables()
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise LaunchError("a sweep starts the ranks itself: run it alone and give it --launcher")
    cells = grid(seeds, vary)
    for override in overrides:
        if (key := override.partition("=")[0]) in cells[0]:
            raise ConfigError(f"--set {override}: the sweep varies {key}; leave out one of the two")
    settings = {
        name: (*overrides, *(f"{key}={value}" for key, value in cell.items()))
        for name, cell in zip(cell_names(cells), cells, strict=True)
    }
    _check(recipe_name, settings, directory, smoke)
    start = _start(launcher) or (["trainer"] if print_only else [sys.executable, "-m", "trainer"])
    commands = {
        name: [
            *(*start, "train", recipe_name),
            *(word for setting in given for word in ("--set", setting)),
            *("--run-dir", str(directory / name)),
            *(["--smoke"] if smoke else []),
        ]
        for name, given in settings.items()
    }
    if print_only:
        print("\n".join(shlex.join(command) for command in commands.values()))
        return DONE
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--run-dir {directory} cannot be made: {error.strerror}") from error
    return _run(commands, directory)


def grid(seeds: str | None, vary: tuple[str, ...]) -> list[dict[str, str]]:
    """Returns the cells of a sweep as overrides, dotted key to YAML text; seeds change fastest.

    `seeds` is such as 1,2,3 and each of `vary` such as key.path=value,value; a comma in brackets or
    braces belongs to its value. Raises ConfigError.
    """
    axes = [_axis(f"--vary {one}", one) for one in vary]
    if seeds is not None:
        axes.append(_axis(f"--seeds {seeds}", f"seed={seeds}"))
    if not axes:
        raise ConfigError("a sweep needs --seeds 1,2,3 or --vary key.path=value,value")
    keys = [key for key, _ in axes]
    for key in keys:
        if keys.count(key) > 1:
            raise ConfigError(f"{key} is varied in two places; give all of its values in one")
    choices = product(*(values for _, values in axes))
    return [dict(zip(keys, values, strict=True)) for values in choices]


def cell_names(cells: list[dict[str, str]]) -> list[str]:
    """Returns a name for the directory of each cell, such as initialization=random,seed=1.

    Names are safe for a file system and differ from each other.
    """
    leaves = {key: key.rpartition(".")[2] for key in cells[0]}
    several = Counter(leaves.values())
    names: list[str] = []
    for cell in cells:
        parts = [
            f"{leaves[key] if several[leaves[key]] == 1 else key}="
            + re.sub(r"[^A-Za-z0-9.+-]+", "_", value).strip("_")
            for key, value in cell.items()
        ]
        names.append(",".join(parts))
    taken = Counter(name.casefold() for name in names)
    for position, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if taken[name.casefold()] > 1 or len(name) > MAX_NAME:
            digest = hashlib.sha256(repr(cell).encode()).hexdigest()[:8]
            names[position] = f"{name[: MAX_NAME - 9]}-{digest}"
    return names


def _axis(option: str, text: str) -> tuple[str, list[str]]:
    """Returns the key of key.path=value,value and its values."""
    key, equals, joined = text.partition("=")
    if not key or not equals:
        raise ConfigError(f"{option}: write it as --vary key.path=value,value")
    values, depth = [""], 0
    for character in joined:
        depth += (character in "[{") - (character in "]}")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    values = [value.strip() for value in values]
    for value in values:
        if not value:
            raise ConfigError(f"{option}: a value is empty; write one on each side of a comma")
        if values.count(value) > 1:
            raise ConfigError(f"{option}: {value} stands there twice; give each value once")
    return key, values


def _check(
    recipe_name: str, settings: dict[str, tuple[str, ...]], directory: Path, smoke: bool
) -> None:
    """Raises ConfigError with what is wrong with any of the cells."""
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
            f"{other} and {name} are the same recipe; leave out one of the two"
            for other, known in recipes.items()
            if known == recipe
        ]
        recipes[name] = recipe
    if problems:
        raise ConfigError(together("", problems))


def _begun(directory: Path) -> bool:
    """Returns whether a run would be continued there rather than started."""
    if not (directory / "config.yaml").is_file():
        return False
    return read_status(directory).get("state") == "done" or any(
        directory.glob("checkpoints/step-*")
    )


def _start(launcher: str | None) -> list[str]:
    """Returns what the launcher puts before `train`, nothing without one."""
    if launcher is None:
        return []
    try:
        words = shlex.split(launcher)
    except ValueError as error:
        raise ConfigError(f"--launcher {launcher}: close the quotation in it") from error
    if not words:
        raise ConfigError("--launcher is empty; write it as 'accelerate launch' or leave it out")
    return [*words, "-m", "trainer"]


def _run(commands: dict[str, list[str]], directory: Path) -> int:
    with heard_signals() as signals:
        for position, (name, command) in enumerate(commands.items()):
            print(f"sweep: {name}, {position + 1} of {len(commands)}", flush=True)
            code = run_child(command, directory / name, signals)
            if code != DONE:
                status = read_status(directory / name)
                reason = f" ({status['message']})" if status.get("exit_code") == code else ""
                print(
                    f"sweep: {name} ended with code {code}{reason}; {position} of {len(commands)} "
                    f"runs are done, and the same sweep goes on from this one",
                    file=sys.stderr,
                )
                return code
    print(f"compare: {shlex.join(['trainer', 'compare', str(directory)])}")
    print(f"curves:  {shlex.join(['tensorboard', '--logdir', str(directory)])}")
    return DONE
