"""Evaluation: answers are generated as the loss is computed, and stop when the run is asked to."""

import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState

from trainer.assembly.build import build_run
from trainer.engines.accelerator import build_accelerator
from trainer.errors import Stopped
from trainer.evaluation import evaluate as evaluation
from trainer.evaluation.evaluate import evaluate
from trainer.tasks.recipe import parse_recipe

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
    """Isolates the precision of this run from those of other runs in this process."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def values() -> dict[str, Any]:
    return {
        "model": {
            "architecture": PHI,
            "initialization": "random",
            "tokenizer": {"train": "bpe", "vocab_size": 300},
        },
        "task": {
            "name": "causal_lm",
            "prompt": "{instruction}",
            "completion": "{output}",
            "generation": {"num_examples": 3, "max_new_tokens": 4},
        },
        "data": {"source": {"builtin": "instructions", "num_rows": 20}},
        "tracking": {"trackers": []},
    }


def test_answers_are_generated_in_the_precision_of_the_loss(
    values: dict[str, Any], tmp_path: Path
) -> None:
    """Frozen weights are bf16 and trained biases fp32, which only autocast can combine."""
    values |= {"tuning": {"mode": "lora", "bias": "lora_only"}, "precision": "bf16"}
    recipe = parse_recipe(values, "phi")
    accelerator = build_accelerator(recipe, tmp_path)
    run = build_run(recipe, accelerator, tmp_path)
    assert {parameter.dtype for parameter in run.model.parameters()} == {
        torch.float32,
        torch.bfloat16,
    }
    assert "bleu" in evaluate(run, accelerator, "validation")


def test_a_run_that_is_asked_to_stop_generates_no_more_answers(
    values: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "ANSWERS_PER_STOP_CHECK", 2)
    recipe = parse_recipe(values, "phi")
    accelerator = build_accelerator(recipe, tmp_path)
    run = build_run(recipe, accelerator, tmp_path)
    asked, generate = list[int](), run.task.generate

    def stopped_meanwhile(model: Any, split: Any, ids: np.ndarray) -> Any:
        asked.extend(ids.tolist())
        run.stop.ask("the time limit")
        return generate(model, split, ids)

    monkeypatch.setattr(run.task, "generate", stopped_meanwhile)
    with pytest.raises(Stopped):
        evaluate(run, accelerator, "train", until_stopped=True)
    assert len(asked) == 2
    asked.clear()
    begun = time.monotonic()
    metrics = evaluate(run, accelerator, "train")
    assert 0 < metrics["seconds"] <= time.monotonic() - begun
    assert asked == run.task.sample(run.splits["train"]).tolist()
