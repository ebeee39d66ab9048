"""A rank that computes longer than the others is named, and the weights stay the same."""

import pytest
import torch
from support.launches import Finished

pytestmark = pytest.mark.distributed
NUM_STEPS = 6
TIMELESS = ("seconds", "tokens_per_second", "peak_memory_bytes", "ranks")


def test_a_slow_rank_is_named_once(
    reviews_recipe, write_recipe, launch, train_on_two_ranks, tmp_path
):
    reviews_recipe["schedule"] = {"name": "constant", "steps": NUM_STEPS}
    reviews_recipe["checkpoint"] |= {"every_steps": NUM_STEPS}
    reviews_recipe["tracking"]["log_every_steps"] = 2
    recipe = write_recipe(reviews_recipe)
    plain = train_on_two_ranks(recipe, tmp_path / "plain")
    process = launch(
        *("train", str(recipe), "--run-dir", str(tmp_path / "run")), fault="one_rank_is_slow"
    )
    output, _ = process.communicate(timeout=300)
    slow = Finished(tmp_path / "run", process.returncode, output)
    assert slow.code == 0, output
    assert output.count("note: rank 1 (") == 1, output
    assert "times as long as the median rank" in output

    tokens = 0
    for mine, theirs in zip(plain.lines(), slow.lines(), strict=True):
        assert {key: value for key, value in mine.items() if key not in TIMELESS} == {
            key: value for key, value in theirs.items() if key not in TIMELESS
        }
        assert mine["ranks"]["tokens"] == theirs["ranks"]["tokens"]
        assert theirs["ranks"]["slowest"] == 1
        least, median, most = theirs["ranks"]["seconds"]
        assert most >= 0.2  # two steps of one micro-batch each
        assert median == least
        tokens += sum(theirs["ranks"]["tokens"])
        assert tokens == theirs["tokens"]
    for name, weight in plain.weights(NUM_STEPS).items():
        assert torch.equal(weight, slow.weights(NUM_STEPS)[name]), name
