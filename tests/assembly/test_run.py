"""A run is put together from parts that belong to its recipe."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from trainer.assembly.build import build_run
from trainer.assembly.run_tokenizer import build_tokenizer
from trainer.engines.accelerator import build_accelerator
from trainer.tasks.recipe import parse_recipe

ROWS = [{"question": "aa ab ba", "answer": "xx xy yx"}] * 9


@pytest.mark.parametrize("first", ["classification", "causal_lm"])
def test_a_trained_tokenizer_is_kept_for_the_task_whose_texts_it_has_seen(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both tasks read the same columns, and one takes texts from only one of them."""
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    tasks: dict[str, dict[str, Any]] = {
        "classification": {},
        "causal_lm": {"prompt": "{question}", "completion": "{answer}"},
    }
    seen: dict[str, bool] = {}
    for name in sorted(tasks, key=lambda name: name != first):
        recipe = parse_recipe(
            {
                "model": {
                    "architecture": {"model_type": "llama"},
                    "initialization": "random",
                    "tokenizer": {"train": "wordpiece", "vocab_size": 64},
                },
                "task": {"name": name, **tasks[name]},
                "data": {
                    "source": {"builtin": "reviews"},
                    "columns": {"text": "question", "label": "answer"},
                },
            },
            name,
        )
        tokenizer = build_tokenizer(recipe, datasets.Dataset.from_list(ROWS), tmp_path / name)
        seen[name] = "x" in tokenizer.get_vocab()
    assert seen == {"classification": False, "causal_lm": True}


@pytest.mark.parametrize(
    ("task", "first_token_alone"),
    [({"name": "classification"}, True), ({"name": "masked_lm"}, False)],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_models_are_made_fast(
    task: dict[str, Any], first_token_alone: bool, reviews_recipe: dict[str, Any], tmp_path: Path
) -> None:
    reviews_recipe["model"]["architecture"]["vocab_size"] = 2000
    reviews_recipe["task"] = task
    reviews_recipe["evaluation"] = {"baseline": False}
    recipe = parse_recipe(reviews_recipe, "fast")
    run = build_run(recipe, build_accelerator(recipe, tmp_path), tmp_path)
    words = run.model.get_input_embeddings()
    assert words.sparse == first_token_alone  # the head of a language model has the same weight
    dropout = run.model.base_model.encoder.layer[0].output.dropout
    assert type(dropout).__name__ == "FastDropout"
    after_attention = run.model.base_model.encoder.layer[-1].attention.output
    assert bool(after_attention._forward_pre_hooks) == first_token_alone
