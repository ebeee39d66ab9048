"""Training speed beside what people would use instead, as medians of interleaved pairs.

    python tests/benchmarks/speed.py --data SST2_FOLDER --tokenizer FOLDER --precision fp32

BERT 4 layers x 256, batch 32, learning rate 1e-4, on the first rows of SST-2's train.tsv. In each
round every loop in turn trains one epoch of the same rows, so all process the same tokens; a ratio
is taken within its round, and the next goes through the loops the other way round.
"""

import argparse
import dataclasses
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from rivals import (
    BATCH,
    LEARNING_RATE,
    PlainLoop,
    TransformersTrainer,
    recipe_values,
    wait_for_device,
)
from torch.nn.utils import clip_grads_with_norm_

from trainer.assembly.build import build_run
from trainer.engines.accelerator import build_accelerator
from trainer.engines.step import global_grad_norm
from trainer.loop import micro_batches_of_step, seed_step, train
from trainer.order import DataOrder
from trainer.run import Run
from trainer.state import TrainState
from trainer.tasks.recipe import parse_recipe
from trainer.tracking.metric_lines import read_lines


class Ours:
    """The package's own loop, with its log and its clipping."""

    def __init__(self, run: Run, accelerator: Any) -> None:
        self.run, self.accelerator, self.state = run, accelerator, TrainState()

    def seconds(self, num_steps: int) -> float:
        """Returns the seconds of the next steps, as the run itself logs them."""
        run = dataclasses.replace(self.run, num_steps=self.state.step + num_steps)
        first = self.state.step
        self.state = train(run, self.accelerator, self.state)
        lines = read_lines(run.directory / "metrics.jsonl")
        return sum(line["seconds"] for line in lines if line["step"] > first)


class BareLoop:
    """Forward, backward, clip and step of the same model alone, over batches made beforehand."""

    def __init__(self, run: Run, accelerator: Any, precision: str) -> None:
        self.run, self.accelerator, self.step = run, accelerator, 0
        self.autocast = precision == "bf16"
        self.optimizer = getattr(run.optimizer, "optimizer", run.optimizer)

    def seconds(self, num_steps: int) -> float:
        """Returns the seconds of the next steps of the run's own order."""
        run, model, parameters = self.run, self.run.model, list(self.run.parameters.values())
        steps = range(self.step, self.step + num_steps)
        batches = [micro_batches_of_step(run, self.accelerator, step)[0] for step in steps]
        self.step += num_steps
        kind = self.accelerator.device.type
        wait_for_device()
        start = time.perf_counter()
        for batch in batches:
            with torch.autocast(kind, torch.bfloat16, enabled=self.autocast):
                logits = model(**batch.inputs).logits
            loss = torch.nn.functional.cross_entropy(logits.float(), batch.targets["labels"])
            loss.backward()
            clip_grads_with_norm_(parameters, 1.0, global_grad_norm(run.parameters))
            self.optimizer.step()
            self.optimizer.zero_grad()
        wait_for_device()
        return time.perf_counter() - start


def padding_share(order: DataOrder, lengths: Any, num_steps: int) -> float:
    """Returns the share of padding among the tokens that the model processes."""
    real = padded = 0
    for step in range(num_steps):
        for ids in order.micro_batches(step, rank=0, world_size=1, micro_batch_size=BATCH):
            real += int(lengths[ids].sum())
            padded += int(lengths[ids].max()) * len(ids)
    return 1 - real / padded


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--data", type=Path, required=True)
    arguments.add_argument("--tokenizer", type=Path, required=True)
    arguments.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--steps", type=int, default=100, help="of an epoch; 50 divide it")
    arguments.add_argument("--overhead", action="store_true", help="ours and the bare loop only")
    arguments.add_argument("--output", type=Path)
    given = arguments.parse_args()

    folder = Path(tempfile.mkdtemp())
    values = recipe_values(given.data, given.tokenizer, given.precision, seed=1)
    values["data"]["max_rows"] = BATCH * given.steps
    recipe = parse_recipe(values, "benchmark")
    accelerator = build_accelerator(recipe, folder)
    run = build_run(recipe, accelerator, folder)
    loops: dict[str, Any] = {
        "ours": Ours(run, accelerator),
        "bare": BareLoop(run, accelerator, given.precision),
    }
    if not given.overhead:
        loops["plain"] = PlainLoop(run, accelerator)
        loops["grouped"] = TransformersTrainer(run, given.precision, folder)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for round_ in range(given.rounds + 1):
        for name, loop in list(loops.items())[:: 1 if round_ % 2 else -1]:
            seed_step(1, round_, 0)
            taken = loop.seconds(given.steps)
            if round_:  # the first is the warm-up
                seconds[name].append(taken)
        print(round_, {name: round(taken[-1], 2) for name, taken in seconds.items() if taken})

    ratios = {
        name: [theirs / ours for theirs, ours in zip(taken, seconds["ours"], strict=True)]
        for name, taken in seconds.items()
    }
    overheads = [1 / ratio - 1 for ratio in ratios["bare"]]
    result = {
        "precision": given.precision,
        "batch": BATCH,
        "learning_rate": LEARNING_RATE,
        "steps_a_round": given.steps,
        "seconds": seconds,
        "median_ratio_to_ours": {name: statistics.median(r) for name, r in ratios.items()},
        "overhead_over_bare": statistics.median(overheads),
        # Of a median of normal values.
        "standard_error_of_overhead": 1.25 * statistics.stdev(overheads) / len(overheads) ** 0.5,
        "padding_share": padding_share(run.order, run.splits["train"].lengths, given.steps),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
