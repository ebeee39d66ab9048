"""Speed and memory of instruction tuning and masked LM beside Transformers' Trainer and TRL.

    pip install trl
    python tests/benchmarks/language_models.py instruction --data alpaca.json --tokenizer GPT2
    python tests/benchmarks/language_models.py masked_lm --data wiki.txt … --tokenizer BERT

A Llama or a BERT of 4 layers x 256 from random. Instructions of up to 512 tokens, 16 examples a
step, or 8 packed sequences; text in blocks of 128, 32 a step, 15 % masked. All loops train the same
tokenised examples: padding does not count as tokens. In each round every loop in turn trains one
epoch, and a ratio is taken within its round. Memory is the peak of an epoch in a process of its
own, `bytes_above` without what it took before the model was built, when all was imported. Where
other work shares the machine, take one thread and the processor's time.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainer.tracking.resident_memory import peak_resident_bytes

# The heavy imports stand in functions: `memory` makes them before it takes its first peak.

LOOPS = {
    "instruction": [
        *("ours", "ours_packed", "trainer", "trainer_grouped"),
        *("sft", "sft_grouped", "sft_packed"),
    ],
    "masked_lm": ["ours", "trainer"],
}
ROWS = {"instruction": 256, "masked_lm": 16}
LENGTH = {"instruction": 512, "masked_lm": 128}
KEYS = ("bytes", "bytes_above")
BATCH = {"instruction": 16, "packed": 8, "masked_lm": 32}


class Nowhere:
    """A store that keeps no checkpoint, as the other loops keep none."""

    def publish(self, *_: Any) -> None: ...

    def prune(self, **_: Any) -> None: ...


class Ours:
    """The package's own loop, over one epoch at a time."""

    def __init__(self, given: argparse.Namespace, folder: Path, *, packing: bool) -> None:
        from trainer.assembly.build import build_run
        from trainer.engines.accelerator import build_accelerator
        from trainer.state import TrainState
        from trainer.tasks.recipe import parse_recipe

        recipe = parse_recipe(recipe_values(given, packing=packing), "benchmark")
        directory = Path(tempfile.mkdtemp(dir=folder))
        self.accelerator = build_accelerator(recipe, directory)
        run = build_run(recipe, self.accelerator, directory)
        self.run: Any = dataclasses.replace(run, store=Nowhere())  # type: ignore[arg-type]
        self.state = TrainState()

    def epoch(self) -> Any:
        """Returns the time of one more epoch."""
        from language_rivals import now

        from trainer.loop import train

        num_steps = self.state.step + self.run.order.steps_per_epoch
        run = dataclasses.replace(self.run, num_steps=num_steps)
        start = now()
        self.state = train(run, self.accelerator, self.state)
        return now().since(start)


def recipe_values(given: argparse.Namespace, *, packing: bool) -> dict[str, Any]:
    """Returns the recipe of a benchmark."""
    from language_rivals import LEARNING_RATE, MASK_SHARE

    instructs = given.task == "instruction"
    batch = BATCH["packed" if packing else given.task]
    return {
        "model": {
            "architecture": {
                "model_type": "llama" if instructs else "bert",
                "hidden_size": 256,
                "num_hidden_layers": 4,
                "num_attention_heads": 4,
                "intermediate_size": 704 if instructs else 1024,
            },
            "initialization": "random",
            "tokenizer": str(given.tokenizer),
            "gradient_checkpointing": given.gradient_checkpointing,
        },
        "task": {
            "name": "causal_lm",
            "prompt": "{instruction}\n{input}\n\nAnswer:\n",
            "completion": "{output}",
            "packing": packing,
        }
        if instructs
        else {"name": "masked_lm", "mask_share": MASK_SHARE},
        "data": {
            "source": {"files": {"train": [str(path) for path in given.data]}},
            "split": {"validation": None, "test": None},
            "documents": "rows" if instructs else "headings",
            "max_rows": given.rows,
        },
        "batch": {
            "global_batch_size": batch,
            "micro_batch_size": batch,
            "max_seq_length": LENGTH[given.task],
        },
        "optimizer": {"learning_rate": LEARNING_RATE},
        "schedule": {"name": "constant", "steps": 1_000_000},
        "precision": given.precision,
        "evaluation": {"baseline": False},
        "tracking": {"trackers": [], "log_every_steps": 10},
    }


def make(name: str, given: argparse.Namespace, folder: Path) -> Any:
    """Returns the loop of a name, with an `epoch` that trains and times one."""
    from language_rivals import Rival

    if name.startswith("ours"):
        return Ours(given, folder, packing=name == "ours_packed")
    return Rival(
        name,
        folder,
        batch=BATCH["packed" if name == "sft_packed" else given.task],
        length=LENGTH[given.task],
        precision=given.precision,
        checkpoints=given.gradient_checkpointing,
    )


def write_examples(given: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Keeps the tokenised examples, tokenizer and configuration for the others; counts tokens."""
    run = make("ours", given, folder).run
    split = run.splits["train"]
    examples: list[dict[str, Any]] = []
    for index in range(len(split)):
        ids = split.ragged("input_ids")[index].tolist()
        if given.task == "instruction":
            learned = split.ragged("learned")[index].tolist()
            pairs = zip(ids, learned, strict=True)
            examples.append({"input_ids": ids, "labels": [i if one else -100 for i, one in pairs]})
        else:
            special = run.tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
            examples.append({"input_ids": ids, "special_tokens_mask": special})
    (folder / "examples.json").write_text(json.dumps(examples))
    run.tokenizer.save_pretrained(folder / "tokenizer")
    run.model.config.save_pretrained(folder / "model")
    return {"examples": len(examples), "tokens": int(split.lengths.sum())}


def memory(name: str, given: argparse.Namespace, folder: Path) -> dict[str, int]:
    """Returns the peak of this process after one epoch, and how far it rose."""
    import language_rivals  # noqa: F401

    import trainer.run  # noqa: F401

    if name.startswith("sft"):
        import trl.trainer.sft_trainer  # noqa: F401
    before = peak_resident_bytes()
    make(name, given, folder).epoch()
    peak = peak_resident_bytes()
    return {"bytes": peak, "bytes_above": peak - before}


def times(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns the times of every round, by loop, and whether TRL keeps packed examples apart."""
    from language_rivals import keeps_apart

    from trainer.loop import seed_step

    loops = {name: make(name, given, folder) for name in given.loops}
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    processor_seconds: dict[str, list[float]] = {name: [] for name in loops}
    for round_ in range(given.rounds + 1):
        for name, loop in loops.items():
            seed_step(1, round_, 0)
            taken = loop.epoch()
            if round_:  # the first is the warm-up
                seconds[name].append(taken.seconds)
                processor_seconds[name].append(taken.processor_seconds)
            print(round_, name, taken, file=sys.stderr, flush=True)
    packed = loops.get("sft_packed")
    return {
        "sft_keeps_apart": packed and keeps_apart(packed.trainer),
        "seconds": seconds,
        "processor_seconds": processor_seconds,
    }


def child(what: str, given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Returns what `main` prints for `--child` in a new process."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", what, "--folder", str(folder)]
    settings = {"OMP_NUM_THREADS": str(given.threads), "TRAINER_CACHE": str(folder / "cache")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=os.environ | settings)
    if done.returncode:
        raise SystemExit(f"{what} failed")
    return json.loads(done.stdout.splitlines()[-1])


def beside(names: list[str], ratio: Callable[[str, str], Any]) -> dict[str, dict[str, Any]]:
    """Returns a ratio for each of ours and each of the others."""
    own = [name for name in names if name.startswith("ours")]
    return {mine: {name: ratio(mine, name) for name in names if name not in own} for mine in own}


def times_faster(taken: dict[str, list[float]], mine: str, name: str) -> float:
    pairs = zip(taken[mine], taken[name], strict=True)
    return statistics.median(theirs / ours for ours, theirs in pairs)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("task", choices=list(LOOPS))
    arguments.add_argument("--data", type=Path, nargs="+", required=True)
    arguments.add_argument("--tokenizer", type=Path, required=True)
    arguments.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    arguments.add_argument("--gradient-checkpointing", action="store_true", help="of all loops")
    arguments.add_argument("--loops", nargs="+", help="some of them")
    arguments.add_argument("--rows", type=int, help="or articles, of an epoch")
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--output", type=Path)
    arguments.add_argument("--child", help=argparse.SUPPRESS)
    arguments.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    given.loops = given.loops or LOOPS[given.task]
    given.rows = given.rows or ROWS[given.task]

    if given.child == "examples":
        print(json.dumps(write_examples(given, given.folder)))
    elif given.child == "times":
        print(json.dumps(times(given, given.folder)))
    elif given.child:
        print(json.dumps(memory(given.child, given, given.folder)))
    if given.child:
        return

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loads = [os.getloadavg()[0]]
        counted = child("examples", given, folder)
        peaks = {name: child(name, given, folder) for name in given.loops}
        loads.append(os.getloadavg()[0])
        timed = child("times", given, folder)
        loads.append(os.getloadavg()[0])

    tokens, seconds, processor = counted["tokens"], timed["seconds"], timed["processor_seconds"]
    result = {
        "task": given.task,
        "precision": given.precision,
        "gradient_checkpointing": given.gradient_checkpointing,
        "an_epoch": counted,
        "tokens_per_second": {
            name: round(tokens / statistics.median(taken)) for name, taken in seconds.items()
        },
        "times_faster": beside(given.loops, partial(times_faster, seconds)),
        "times_faster_on_the_processor": beside(given.loops, partial(times_faster, processor)),
        "share_of_memory": beside(
            given.loops,
            lambda mine, name: {key: peaks[mine][key] / peaks[name][key] for key in KEYS},
        ),
        "memory": peaks,
        **timed,
        "versions": {name: version(name) for name in ("torch", "transformers", "trl")},
        "machine": {
            "processor": platform.machine(),
            "threads": given.threads,
            "load_at_start_before_times_and_at_end": loads,
        },
    }
    text = json.dumps(result, indent=2)
    print(text)
    if given.output:
        given.output.write_text(text + "\n")


if __name__ == "__main__":
    main()
