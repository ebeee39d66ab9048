"""The gradient does not depend on micro-batch size, accumulation or the number of ranks."""

from pathlib import Path
from typing import Any

import pytest
from support.launches import Finished, assert_same_metrics, largest_difference
from support.step_recipes import ARCHITECTURES, OPTIMIZERS, TASKS, recipe_of

CUTS = {"1x8x4": 8, "1x4x8": 4, "2x4x4": 4}
"""ranks x micro-batch x accumulation, which are compared with 1x32x1."""


@pytest.mark.distributed
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_loss_norm_and_parameters(
    architecture, optimizer, uneven_rows, write_recipe, train_here, train_on_two_ranks, tmp_path
):
    recipe = recipe_of(architecture, {"train": "wordpiece", "vocab_size": 200}, optimizer) | {
        # Unequal weights give micro-batches unequal denominators.
        "task": {"name": "classification", "class_weights": [1.0, 3.0]},
        "data": {"source": {"files": {"train": str(uneven_rows)}}, "split": {"validation": None}},
    }
    # So large that one process keeps gradients of the embedding as rows; two do not.
    recipe["model"]["architecture"]["vocab_size"] = 4000
    assert_cuts_agree(write_recipe(recipe), train_here, train_on_two_ranks, tmp_path)


@pytest.mark.distributed
@pytest.mark.parametrize("task", TASKS)
def test_every_task(task, write_recipe, train_here, train_on_two_ranks, tmp_path):
    """Several loss terms a step, and metrics of splits that two ranks cannot share evenly."""
    case = TASKS[task]
    recipe = recipe_of(case["model"], case["tokenizer"], "sgd")
    recipe |= {"task": case["task"], "data": {**case["data"], "max_rows": 150}}
    recipe["batch"]["max_seq_length"] = 96
    whole, halves = assert_cuts_agree(
        write_recipe(recipe), train_here, train_on_two_ranks, tmp_path
    )
    assert_same_metrics(whole, halves)


def assert_cuts_agree(
    recipe: Path, train_here: Any, train_on_two_ranks: Any, tmp_path: Path
) -> tuple[Finished, Finished]:
    """Compares all cuts, and returns the run with whole steps and the one on two ranks."""
    whole = train_here(recipe, tmp_path / "1x32x1")
    norms = [line["grad_norm"] for line in whole.lines()]
    assert min(norms) > 0.02, "clipping must be active in every step"
    assert largest_difference(whole.weights(1), whole.weights(5)) > 1e-3

    done = whole
    for cut, micro_batch in CUTS.items():
        train = train_on_two_ranks if cut.startswith("2") else train_here
        done = train(recipe, tmp_path / cut, f"batch.micro_batch_size={micro_batch}")
        assert done.status()["state"] == "done", done.output
        for mine, theirs in zip(whole.lines(), done.lines(), strict=True):
            losses = [name for name in mine if name.startswith("loss")]
            for name in (*losses, "grad_norm"):
                assert mine[name] == pytest.approx(theirs[name], abs=1e-6), (cut, name)
        assert largest_difference(whole.weights(5), done.weights(5)) < 1e-6, cut
    return whole, done


def test_two_ranks_train_and_evaluate_as_one(reviews_recipe, write_recipe, train_here,
                                             train_on_two_ranks, tmp_path: Path):  # fmt: skip
    """The same examples in each step and, without dropout, the same losses and metrics."""
    reviews_recipe["model"]["architecture"] |= {
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    reviews_recipe["data"]["source"]["num_rows"] = 150  # the last step of an epoch is incomplete
    reviews_recipe["tracking"]["log_every_steps"] = 1
    recipe = write_recipe(reviews_recipe)
    one = train_here(recipe, tmp_path / "one")
    two = train_on_two_ranks(recipe, tmp_path / "two", "batch.micro_batch_size=4")
    assert two.status()["state"] == "done", two.output
    for mine, theirs in zip(one.lines(), two.lines(), strict=True):
        assert (mine["step"], mine["samples"], mine["tokens"]) == (
            theirs["step"],
            theirs["samples"],
            theirs["tokens"],
        )
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
        assert theirs.keys() - mine.keys() == {"ranks"}
    mine, theirs = one.results(), two.results()
    assert theirs["processes"] == 2
    for key in ("best", "final"):
        for split, metrics in mine[key]["metrics"].items():
            other = theirs[key]["metrics"][split]
            assert metrics["accuracy"] == other["accuracy"]
            assert metrics["per_class"] == other["per_class"]
            assert metrics["loss"] == pytest.approx(other["loss"], abs=1e-5)
    ids = (tmp_path / "two" / "predictions" / "test.jsonl").read_text().splitlines()
    assert len(ids) == len(set(ids)) == 200
