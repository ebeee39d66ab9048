"""Evaluation: what is generated is computed as what is measured."""

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState

from trainer.evaluation import evaluate
from trainer.launch import build_accelerator
from trainer.recipe import parse_recipe
from trainer.run import build_run

PHI: dict[str, Any] = {
    "model_type": "phi",
    "hidden_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 128,
}


@pytest.fixture(autouse=True)
def own_precision() -> Generator[None]:
    """Forgets the precision of other runs in this process, and then that of this one."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def test_answers_are_generated_in_the_precision_of_the_loss(tmp_path: Path) -> None:
    """Frozen weights are bf16 here and the biases that learn fp32: only autocast joins them."""
    recipe = parse_recipe(
        {
            "model": {
                "architecture": PHI,
                "initialization": "random",
                "tokenizer": {"train": "bpe", "vocab_size": 300},
            },
            "tuning": {"mode": "lora", "bias": "lora_only"},
            "task": {
                "name": "causal_lm",
                "prompt": "{instruction}",
                "completion": "{output}",
                "generation": {"num_examples": 3, "max_new_tokens": 4},
            },
            "data": {"source": {"builtin": "instructions", "num_rows": 20}},
            "precision": "bf16",
            "tracking": {"trackers": []},
        },
        "phi",
    )
    accelerator = build_accelerator(recipe, tmp_path)
    run = build_run(recipe, accelerator, tmp_path)
    assert {parameter.dtype for parameter in run.model.parameters()} == {
        torch.float32,
        torch.bfloat16,
    }
    assert "bleu" in evaluate(run, accelerator, "validation")
