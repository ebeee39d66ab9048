"""A stop request to one rank, at any moment, stops all ranks; nothing is lost or done twice."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.launches import Finished, wait_until

pytestmark = pytest.mark.distributed


@pytest.fixture
def stop_in(launch, recipe, tmp_path) -> Callable[..., Finished]:
    """Trains until a rank is where a fault makes it slow, and asks only that rank to stop."""

    def stop(fault: str, *, rank: int, config: str) -> Finished:
        ready = tmp_path / "ready"
        ready.unlink(missing_ok=True)
        arguments = ("train", str(recipe), "--run-dir", str(tmp_path / "run"))
        variables = {"READY": str(ready), "SLOW_RANK": str(rank)}
        process = launch(*arguments, config=config, fault=fault, **variables)
        wait_until(ready.is_file, process)
        asked = time.monotonic()
        os.kill(int(ready.read_text()), signal.SIGUSR1)
        output, _ = process.communicate(timeout=120)
        assert time.monotonic() - asked < 30
        stopped = Finished(tmp_path / "run", process.returncode, output)
        assert (stopped.status()["state"], stopped.status()["exit_code"]) == ("stopped", 85), output
        assert 'faults.py", line' not in output  # no traceback through the package
        return stopped

    return stop


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["data"]["split"] = {"validation": {"ratio": 0.5, "seed": 1}}
    reviews_recipe["batch"]["micro_batch_size"] = 2
    reviews_recipe["evaluation"]["baseline"] = False
    reviews_recipe["checkpoint"] |= {"every_steps": 8, "keep_last": 1}
    reviews_recipe["tracking"]["log_every_steps"] = 1
    return write_recipe(reviews_recipe)


@pytest.mark.parametrize("config", ["cpu-2", pytest.param("zero3", marks=pytest.mark.slow)])
def test_a_signal_to_one_rank_of_two(config, recipe, stop_in, train_on_two_ranks, tmp_path):
    whole = train_on_two_ranks(recipe, tmp_path / "whole", config=config)
    stopped = stop_in("preparation_is_slow", rank=1, config=config)
    assert stopped.status()["step"] is None
    assert "starts again" in stopped.status()["message"]
    stopped = stop_in("evaluation_is_slow", rank=1, config=config)
    assert stopped.status()["step"] == 5
    assert stopped.lines("validation") == []
    stopped = stop_in("saving_is_slow", rank=0, config=config)
    assert stopped.status()["step"] == 5  # it is evaluated now, is the best, and is saved again
    assert len(stopped.lines("validation")) == 1
    done = train_on_two_ranks(recipe, tmp_path / "run", config=config)
    assert done.status()["state"] == "done", done.output
    for name, tensor in whole.weights(10).items():
        assert torch.equal(tensor, done.weights(10)[name]), name
    for split in ("train", "validation"):
        assert [line["step"] for line in done.lines(split)] == [
            line["step"] for line in whole.lines(split)
        ]
        assert [line["loss"] for line in done.lines(split)] == [
            line["loss"] for line in whole.lines(split)
        ]
