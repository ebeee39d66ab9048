"""The small runs of stage 1: recipes, and how far a GPU may differ from a CPU in each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shapes import TINY_LLAMA

NUM_STEPS = 5
SHAPE = {
    "model_type": "llama",
    **TINY_LLAMA,
    # Moments of 100,000 numbers or more are paged.
    "hidden_size": 256,
    "head_dim": 64,
    "intermediate_size": 512,
}


NO_SPLITS = {"validation": None, "test": None}


@dataclass(frozen=True)
class Bound:
    """How much two devices may differ after five steps."""

    loss: float
    """Of a step, relative."""
    update: float
    """|u - v| / |v| of the changes that the later steps made to all weights together."""


BOUNDS = {
    # On one CPU, another order of sums changes losses by 1.5e-7 and updates by 3e-6; products in
    # TF32 would change updates by more than the bound.
    "fp32": Bound(5e-5, 1e-3),
    # The same, and ties that round to the next of 16 values. Without quantization: 7e-3 and 0.38.
    "qlora fp32": Bound(1e-3, 0.02),
    # Inputs of layers are rounded to 8 bits in each step. Without quantization: 7e-4 and 0.06.
    "int8_lora fp32": Bound(5e-4, 0.02),
    # Moments of 8 bits, where ties round to the next value.
    "adamw_8bit fp32": Bound(1e-3, 0.02),
    # Products are rounded to 8 bits of mantissa in different places. bf16 and fp32 on one CPU
    # differ by up to 2e-3 and 0.1 (qlora).
    "bf16": Bound(1e-2, 0.15),
}
"""By tuning mode or optimizer and precision; a case without an entry has that of its precision."""


def bound_of(name: str) -> Bound:
    """Returns the bound of a case such as `qlora fp32`."""
    return BOUNDS.get(name.removeprefix("packed ")) or BOUNDS[name.rpartition(" ")[2]]


COMPARED_IN_A_REHEARSAL = ("full fp32", "qlora fp32", "packed qlora bf16")
"""In a rehearsal both devices are the same CPU, so these few are enough."""


def five_steps(*, tiny: bool) -> dict[str, dict[str, Any]]:
    """Returns the recipes that are trained on a GPU and on a CPU, by name."""
    modes = ("full", "head_only", "lora", "qlora", "int8_lora")
    cases = {f"{mode} fp32": classification(mode) for mode in modes}
    cases["packed full fp32"] = packed("full")
    cases["adamw_8bit fp32"] = with_optimizer(classification("full"), "adamw_8bit")
    in_bf16 = ("qlora",) if tiny else modes
    cases |= {f"{mode} bf16": classification(mode) | {"precision": "bf16"} for mode in in_bf16}
    cases["packed qlora bf16"] = packed("qlora") | {"precision": "bf16"}
    return cases


def resumed(*, on_gpu: bool) -> dict[str, dict[str, Any]]:
    """Returns recipes with dropout whose runs resume exactly, by name."""
    cases = {
        "full fp32": classification("full"),
        "packed qlora bf16": packed("qlora") | {"precision": "bf16"},
        "paged_adamw_8bit fp32": with_optimizer(classification("full"), "paged_adamw_8bit"),
    }
    if on_gpu:
        cases["full fp16"] = classification("full") | {"precision": "fp16"}
    for case in cases.values():
        case["deterministic"] = True
        case["tuning"]["dropout"] = 0.1
        case["model"]["architecture"] = {**SHAPE, "attention_dropout": 0.1}
        case["schedule"]["steps"] = 6
        case["checkpoint"] = {"every_steps": 3, "keep_last": 3, "verify_export": False}
    return cases


def classification(mode: str) -> dict[str, Any]:
    return recipe(mode) | {
        "task": {"name": "classification", "labels": ["negative", "positive"]},
        "data": {"source": {"builtin": "reviews", "num_rows": 160, "seed": 1}, "split": NO_SPLITS},
    }


def packed(mode: str) -> dict[str, Any]:
    return recipe(mode) | {
        "task": {
            "name": "causal_lm",
            "prompt": "{instruction} {input} ",
            "completion": "{output}",
            "packing": True,
            "generation": {"num_examples": 0},
        },
        "data": {"source": {"builtin": "instructions", "num_rows": 800}, "split": NO_SPLITS},
    }


def recipe(mode: str) -> dict[str, Any]:
    return {
        "seed": 1,
        "model": {
            "architecture": dict(SHAPE),
            "initialization": "random",
            "tokenizer": {"train": "bpe", "vocab_size": 500},
        },
        "tuning": {"mode": mode, "r": 8, "dropout": 0.0},
        "batch": {"global_batch_size": 16, "micro_batch_size": 8, "max_seq_length": 96},
        # A small eps would amplify rounding where gradients are near 0.
        "optimizer": {"name": "adamw", "learning_rate": 3e-4, "eps": 1e-4},
        "schedule": {"name": "constant", "steps": NUM_STEPS},
        "precision": "fp32",
        "evaluation": {"baseline": False},
        "checkpoint": {"every_steps": 1, "keep_last": NUM_STEPS, "verify_export": False},
        "tracking": {"trackers": [], "log_every_steps": 1},
    }


def with_optimizer(values: dict[str, Any], name: str) -> dict[str, Any]:
    values["optimizer"]["name"] = name
    return values


def folder_of(root: Path, name: str) -> Path:
    """Returns the run directory of a case."""
    return root / name.replace(" ", "-")
