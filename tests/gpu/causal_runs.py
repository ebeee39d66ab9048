"""Runs of the package on instructions packed to 2,048 tokens, with the Llama-3.2-1B shape."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from shapes import llama_1b, model_folder, write_instructions
from stage import Stage

LEARNING_RATE = 1e-4


class Unsaved:
    """A saver that saves nothing, so that it takes no time or space from the measurement."""

    reserve, busy = 0.0, False

    def save(self, *_: Any, **__: Any) -> None: ...

    def finish(self, *_: Any) -> None: ...


@dataclasses.dataclass(frozen=True)
class Size:
    sequence: int
    batch: int
    """Packed sequences of a step, in one micro-batch."""
    rows: int
    warm_up: int
    steps: int


TINY = Size(sequence=192, batch=2, rows=24, warm_up=1, steps=2)


def size_of(stage: Stage) -> Size:
    """Returns the size of the measured runs."""
    return TINY if stage.tiny else Size(sequence=2048, batch=4, rows=700, warm_up=4, steps=16)


def recipe_values(stage: Stage, mode: str, *, tiny: bool | None = None) -> dict[str, Any]:
    """Returns the recipe of a tuning mode; `tiny` is by default that of the stage.

    Creates the rows and the model unless they exist.
    """
    tiny = stage.tiny if tiny is None else tiny
    size, name = (TINY, "llama-tiny") if tiny else (size_of(stage), "llama-1b")
    rows = stage.work / f"{name}.jsonl"
    if not rows.is_file():
        write_instructions(rows, size.rows)
    folder = model_folder(stage.work, name, llama_1b(tiny=tiny), stage.device)
    return {
        "seed": 1,
        "model": {
            "name_or_path": str(folder),
            "tokenizer": {"train": "bpe", "vocab_size": 600},
        },
        "tuning": {"mode": mode},
        "task": {
            "name": "causal_lm",
            "prompt": "{instruction}\n",
            "completion": "{output}",
            "packing": True,
            "generation": {"num_examples": 0},
        },
        "data": {"source": {"files": {"train": str(rows)}}, "split": {"validation": None}},
        "batch": {
            "global_batch_size": size.batch,
            "micro_batch_size": size.batch,
            "max_seq_length": size.sequence,
        },
        "optimizer": {"learning_rate": LEARNING_RATE},
        "schedule": {"name": "constant", "steps": 1_000_000},
        "precision": "bf16",
        "evaluation": {"baseline": False},
        "tracking": {"trackers": [], "log_every_steps": 4},
    }


def build(values: dict[str, Any], directory: Path) -> tuple[Any, Any]:
    """Returns a run of the package that saves nothing, and its accelerator."""
    from trainer.assembly.build import build_run
    from trainer.engines.accelerator import build_accelerator
    from trainer.tasks.recipe import parse_recipe

    AcceleratorState._reset_state(reset_partial_state=True)
    directory.mkdir(parents=True, exist_ok=True)
    recipe = parse_recipe(values, "tests/gpu")
    accelerator = build_accelerator(recipe, directory)
    run: Any = build_run(recipe, accelerator, directory)
    return dataclasses.replace(run, saver=Unsaved()), accelerator


def free_memory(device: str) -> None:
    """Frees unused memory and resets the peak."""
    import gc

    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_bytes(device: str) -> int | None:
    """Returns the peak of the GPU's tensors in bytes since `free_memory`, or None on a CPU."""
    return torch.cuda.max_memory_allocated() if device == "cuda" else None
