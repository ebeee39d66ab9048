"""The recipe that most tests start from."""

import copy
from typing import Any

REVIEWS: dict[str, Any] = {
    "seed": 1,
    "model": {
        "architecture": {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        },
        "initialization": "random",
        "tokenizer": {"train": "wordpiece", "vocab_size": 400},
    },
    "tuning": {"mode": "full"},
    "task": {"name": "classification", "labels": ["negative", "positive"]},
    "data": {
        "source": {"builtin": "reviews", "num_rows": 160, "seed": 1},
        "columns": {"text": "text", "label": "label"},
    },
    "batch": {"global_batch_size": 16, "micro_batch_size": 8, "max_seq_length": 32},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    "schedule": {"name": "linear", "epochs": 2, "warmup_ratio": 0.1},
    "precision": "fp32",
    "evaluation": {"baseline": True, "every": "epoch", "metric": "accuracy", "mode": "max"},
    # What other tests run leaves the gate out, which takes seconds: see tests/exports.
    "checkpoint": {"every_steps": 5, "keep_last": 2, "keep_best": True, "verify_export": False},
    "tracking": {"trackers": [], "log_every_steps": 5},
}


def reviews_recipe() -> dict[str, Any]:
    """Returns a recipe to change at will: a tiny BERT on 160 built-in reviews, 20 steps."""
    return copy.deepcopy(REVIEWS)
