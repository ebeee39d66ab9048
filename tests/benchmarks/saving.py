"""What saving costs: bytes of an adapter run beside the full state, and how long a step stalls.

    python tests/benchmarks/saving.py

A random Llama of 39 million parameters on built-in reviews, on one CPU process: all of it and with
LoRA, saved while training waits and in the background. In each round the runs take turns; every
eighth step saves. `blocked` is the time in which training waits for a save to begin or to end. A
stall is the wall time between two steps with a save in it, less the median of those without;
`later` is how much longer the next six took. With OMP_NUM_THREADS=1 a core is left to the writer,
as beside a GPU.
"""

import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors
import torch

from trainer.assembly.build import build_run
from trainer.checkpoints.disk_space import bytes_in
from trainer.engines.accelerator import build_accelerator
from trainer.loop import train
from trainer.state import TrainState
from trainer.tasks.recipe import parse_recipe

NUM_STEPS, EVERY, ROUNDS = 25, 8, 3
CASES = {
    "all, waiting": ("full", False),
    "all, in the background": ("full", True),
    "LoRA, waiting": ("lora", False),
    "LoRA, in the background": ("lora", True),
}


def recipe_of(mode: str, background: bool) -> dict[str, Any]:
    return {
        "model": {
            "architecture": {
                "model_type": "llama",
                "hidden_size": 512,
                "num_hidden_layers": 12,
                "num_attention_heads": 8,
                "num_key_value_heads": 8,
                "intermediate_size": 1408,
                "max_position_embeddings": 64,
            },
            "initialization": "random",
            "tokenizer": {"train": "wordpiece", "vocab_size": 400},
        },
        "tuning": {"mode": mode},
        "task": {"name": "classification", "labels": ["negative", "positive"]},
        "data": {"source": {"builtin": "reviews", "num_rows": 400, "seed": 1}},
        "batch": {"global_batch_size": 8, "max_seq_length": 32},
        "schedule": {"steps": NUM_STEPS},
        "precision": "fp32",
        "evaluation": {"baseline": False, "every": 10_000},
        "checkpoint": {"every_steps": EVERY, "keep_last": 1, "async": background},
        "tracking": {"trackers": [], "log_every_steps": 10_000},
    }


def measure(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the seconds between steps, and the bytes of a checkpoint, of one run of a recipe."""
    recipe = parse_recipe(values, "saving.py")
    num_steps, every = values["schedule"]["steps"], values["checkpoint"]["every_steps"]
    accelerator = build_accelerator(recipe, folder)
    run = build_run(recipe, accelerator, folder)
    times: list[float] = []
    run.tracker.progress = lambda *_: times.append(time.monotonic())  # after each step
    blocked: list[float] = []
    save = run.saver.save

    def timed(*arguments: Any, **named: Any) -> None:
        begun = time.monotonic()
        save(*arguments, **named)
        blocked.append(time.monotonic() - begun)

    run.saver.save = timed
    train(run, accelerator, TrainState())
    between = [after - before for before, after in itertools.pairwise(times)]
    saving = set(range(every, num_steps - 1, every))
    # between[i] lies between the ends of step i + 1 and i + 2: a save of step i + 1 is in it.
    plain = [s for i, s in enumerate(between[4:], 5) if i not in saving and i - 1 not in saving]
    step = statistics.median(plain)
    after = [sum(between[s : s + every - 2]) - (every - 2) * step for s in sorted(saving)]
    return {
        "step": step,
        "blocked": statistics.median(blocked[:-1]),
        "stall": statistics.median(between[s - 1] for s in saving) - step,
        "later": statistics.median(after),
        "checkpoint_bytes": bytes_in(run.store.path(num_steps)),
        "parameters": run.parameter_counts.total,
        "trainable": run.parameter_counts.trainable,
    }


def main() -> None:
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in CASES}
    for number in range(ROUNDS):
        for name, (mode, background) in CASES.items():
            with tempfile.TemporaryDirectory() as folder:
                rounds[name].append(measure(recipe_of(mode, background), Path(folder)))
            print(number, name, json.dumps(rounds[name][-1]), flush=True)
    results = {
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "threads": torch.get_num_threads(),
        "versions": {"torch": torch.__version__, "safetensors": safetensors.__version__},
        "rounds": rounds,
        "medians": {
            name: {key: statistics.median(one[key] for one in found) for key in found[0]}
            for name, found in rounds.items()
        },
    }
    file = Path(__file__).parent / "results" / "saving.json"
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results["medians"], indent=2))


if __name__ == "__main__":
    main()
