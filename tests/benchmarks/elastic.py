"""How exactly a run goes on under another engine and number of ranks.

    python tests/benchmarks/elastic.py

Ten clipped steps of AdamW in fp32, without dropout, under each engine; from the checkpoint of the
fifth, five more under each other. Prints, for each pair, the largest difference from the run that
was not interrupted, of the next losses and of the weights after them; writes
results/elastic.json.
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
from engines import train

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.launches import largest_difference, write_uneven_rows
from support.step_recipes import classification

ENGINES = {
    "one process": None,
    "DDP 2": "cpu-2",
    "ZeRO-1 2": "zero1",
    "ZeRO-2 2": "zero2",
    "ZeRO-3 2": "zero3",
}
SAVED, LAST = 5, 10


def measure(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Returns the largest differences by the engine that saved, and the one that went on."""
    recipe = classification(write_uneven_rows(folder / "rows.jsonl"))
    recipe["schedule"] |= {"steps": LAST}
    recipe["checkpoint"] |= {"keep_last": LAST}
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe))
    found: dict[str, dict[str, dict[str, float]]] = {}
    for saved, config in ENGINES.items():
        whole = train(file, folder / saved, config)
        checkpoint = whole.directory / "checkpoints" / f"step-{SAVED:08d}"
        found[saved] = {}
        for resumed, other in ENGINES.items():
            run = train(file, folder / f"{saved} {resumed}", other, "--resume", str(checkpoint))
            pairs = zip(whole.lines()[SAVED:], run.lines(), strict=True)
            found[saved][resumed] = {
                "loss": max(abs(mine["loss"] - theirs["loss"]) for mine, theirs in pairs),
                "weights": largest_difference(whole.weights(LAST), run.weights(LAST)),
            }
            print(saved, "->", resumed, found[saved][resumed], flush=True)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    results = {
        "machine": platform.machine(),
        "versions": {one.__name__: one.__version__ for one in (torch, accelerate, deepspeed)},
        "differences": found,
    }
    file = Path(__file__).parent / "results" / "elastic.json"
    file.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
