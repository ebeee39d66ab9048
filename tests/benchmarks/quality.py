"""Dev accuracy of length-bucketed training beside a shuffled loop, over seeds: buckets cost none.

    python tests/benchmarks/quality.py --data SST2_FOLDER --tokenizer FOLDER

BERT 4 layers x 256 from scratch, 20,000 rows of SST-2, batch 32, learning rate 1e-4, constant.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from rivals import BATCH, PlainLoop, recipe_values

from trainer.assembly.build import build_run
from trainer.engines.accelerator import build_accelerator
from trainer.evaluation.evaluate import evaluate
from trainer.loop import train
from trainer.state import TrainState
from trainer.tasks.recipe import parse_recipe


def accuracies(given: Any, seed: int) -> dict[str, float]:
    """Returns the dev accuracy of our loop and of the plain one, from the same initial weights."""
    folder = Path(tempfile.mkdtemp())
    recipe = parse_recipe(recipe_values(given.data, given.tokenizer, "fp32", seed), "benchmark")
    accelerator = build_accelerator(recipe, folder)
    run = build_run(recipe, accelerator, folder)
    num_steps = given.epochs * run.order.steps_per_epoch
    plain = PlainLoop(run, accelerator)
    train(dataclasses.replace(run, num_steps=num_steps), accelerator, TrainState())
    ours = evaluate(run, accelerator, "test")["accuracy"]
    torch.manual_seed(seed)
    plain.seconds(num_steps)
    run.model.load_state_dict(plain.model.state_dict())
    return {"bucketed": ours, "shuffled": evaluate(run, accelerator, "test")["accuracy"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    found = {seed: accuracies(given, seed) for seed in given.seeds}
    means = {
        name: statistics.mean(one[name] for one in found.values())
        for name in ("bucketed", "shuffled")
    }
    result = {"batch": BATCH, "epochs": given.epochs, "dev_accuracy": found, "mean": means}
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
