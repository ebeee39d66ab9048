"""Recipes of five clipped steps on unevenly filled micro-batches, for every task.

They show whether an engine, or the way a step is cut into micro-batches, changes what is learned.
"""

from pathlib import Path
from typing import Any

STAGES = ("zero1", "zero2", "zero3")
SETS = ("zero2-offload", "zero3-offload", "fsdp2")
"""Launch configurations of DeepSpeed's stages, and the others that shard."""

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": {
        "model_type": "bert",
        "intermediate_size": 128,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
    "llama": {"model_type": "llama", "intermediate_size": 128, "num_key_value_heads": 2},
}
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.02},
    # A small eps would amplify rounding where gradients are near 0.
    "adamw": {"name": "adamw", "learning_rate": 1e-3, "eps": 1e-4, "max_grad_norm": 0.02},
}
TASKS: dict[str, dict[str, Any]] = {
    "masked_lm": {
        "task": {"name": "masked_lm", "next_sentence_prediction": True, "mask_share": 0.3},
        "data": {"source": {"builtin": "documents", "num_rows": 40}},
        "model": "bert",
        "tokenizer": {"train": "wordpiece", "vocab_size": 600},
    },
    "instructions": {
        "task": {
            "name": "causal_lm",
            "prompt": "{instruction} {input} ",
            "completion": "{output}",
            "generation": {"num_examples": 5, "max_new_tokens": 4},
        },
        "data": {"source": {"builtin": "instructions", "num_rows": 160}},
        "model": "llama",
        "tokenizer": {"train": "bpe", "vocab_size": 600},
    },
    "packed": {
        "task": {
            "name": "causal_lm",
            "prompt": "{instruction} {input} ",
            "completion": "{output}",
            "packing": True,
            "generation": {"num_examples": 0},
        },
        "data": {"source": {"builtin": "instructions", "num_rows": 400}},
        "model": "llama",
        "tokenizer": {"train": "bpe", "vocab_size": 600},
    },
    "question_answering": {
        "task": {"name": "question_answering", "stride": 16},
        "data": {"source": {"builtin": "passages", "num_rows": 60}},
        "model": "bert",
        "tokenizer": {"train": "wordpiece", "vocab_size": 600},
    },
}
SHAPE = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def recipe_of(model: str, tokenizer: dict[str, Any], optimizer: str) -> dict[str, Any]:
    return {
        "model": {
            "architecture": {**ARCHITECTURES[model], **SHAPE},
            "initialization": "random",
            "tokenizer": tokenizer,
        },
        "batch": {"global_batch_size": 32, "micro_batch_size": 32},
        "optimizer": dict(OPTIMIZERS[optimizer]),
        "schedule": {"name": "constant", "steps": 5},
        "precision": "fp32",
        "evaluation": {"baseline": False},
        "checkpoint": {"every_steps": 1, "keep_last": 5, "verify_export": False},
        "tracking": {"trackers": [], "log_every_steps": 1},
    }


def classification(uneven_rows: Path, optimizer: str = "adamw") -> dict[str, Any]:
    """A BERT on steps of 8 unevenly filled, unequally weighted micro-batches, with clipping.

    Neither its three labels nor the weights of its head can be divided evenly between two ranks.
    """
    recipe = recipe_of("bert", {"train": "wordpiece", "vocab_size": 200}, optimizer)
    recipe["batch"]["micro_batch_size"] = 4
    recipe["model"]["architecture"]["hidden_size"] = 60
    labels = ["no", "yes", "never"]
    return recipe | {
        "task": {"name": "classification", "labels": labels, "class_weights": [1.0, 3.0, 1.0]},
        "data": {"source": {"files": {"train": str(uneven_rows)}}},
    }


def of_task(task: str, optimizer: str = "sgd") -> dict[str, Any]:
    case = TASKS[task]
    recipe = recipe_of(case["model"], case["tokenizer"], optimizer)
    recipe |= {"task": case["task"], "data": {**case["data"], "max_rows": 100}}
    recipe["batch"] |= {"max_seq_length": 96, "micro_batch_size": 4}
    return recipe
