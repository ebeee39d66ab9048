"""How far five steps under each engine are from those of one process, on two CPU ranks.

    python tests/benchmarks/engines.py

Prints the largest difference of a weight and of a loss after five clipped steps of unevenly filled
micro-batches, for each task, and writes them to results/engines.json. The recipes are those of
tests/distributed/test_engines.py, which asserts 1e-6.
"""

import json
import platform
import sys
import tempfile
from pathlib import Path

import accelerate
import deepspeed
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.launches import (
    Finished,
    largest_difference,
    launch_command,
    run_to_its_end,
    write_uneven_rows,
)
from support.step_recipes import SETS, STAGES, TASKS, classification, of_task

ENGINES = (None, "cpu-2", *STAGES, *SETS)


def measure(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the largest difference of weights and losses by recipe and engine."""
    rows = write_uneven_rows(folder / "rows.jsonl")
    recipes = {f"classification, {name}": classification(rows, name) for name in ("sgd", "adamw")}
    recipes |= {f"{task}, sgd": of_task(task) for task in TASKS}
    found: dict[str, dict[str, dict[str, float]]] = {}
    for name, recipe in recipes.items():
        file = folder / "recipe.yaml"
        file.write_text(yaml.safe_dump(recipe))
        runs = {engine: train(file, folder / name / str(engine), engine) for engine in ENGINES}
        whole = runs.pop(None)
        found[name] = {
            str(engine): {
                "weights": largest_difference(whole.weights(5), run.weights(5)),
                "loss": max(
                    abs(mine["loss"] - theirs["loss"])
                    for mine, theirs in zip(whole.lines(), run.lines(), strict=True)
                ),
            }
            for engine, run in runs.items()
        }
        print(name, json.dumps(found[name], indent=2), flush=True)
    return found


def train(recipe: Path, directory: Path, engine: str | None, *options: str) -> Finished:
    directory.parent.mkdir(exist_ok=True)
    arguments = ("train", str(recipe), "--run-dir", str(directory), *options)
    command = (
        [sys.executable, "-m", "trainer", *arguments]
        if engine is None
        else launch_command(*arguments, config=engine)
    )
    done = run_to_its_end(command, directory)
    assert done.status()["state"] == "done", done.output
    return done


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        differences = measure(Path(temporary))
    versions = {module.__name__: module.__version__ for module in (torch, accelerate, deepspeed)}
    record = {"processor": platform.processor() or platform.machine(), "versions": versions}
    target = Path(__file__).parent / "results" / "engines.json"
    target.write_text(json.dumps({**record, "largest difference": differences}, indent=2) + "\n")
