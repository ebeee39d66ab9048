"""A run that is stopped anywhere ends with exactly the weights of the uninterrupted run."""

import os
import random
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from support.launches import Finished, wait_until

from trainer.tasks.classification import task as classification

STEPS = 30  # three epochs of ten, the last of each incomplete


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    # So large that one process keeps gradients of the embedding as rows.
    reviews_recipe["model"]["architecture"]["vocab_size"] = 2000
    reviews_recipe["data"]["source"]["num_rows"] = 150
    reviews_recipe["schedule"]["epochs"] = 3
    reviews_recipe["checkpoint"] |= {"every_steps": 4, "keep_last": 2}
    reviews_recipe["tracking"]["log_every_steps"] = 1
    return write_recipe(reviews_recipe)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_process(seed, recipe, train_here, tmp_path, monkeypatch):
    used: list[int] = []

    class Recording(classification.Classification):
        def collate(self, split, ids, epoch):
            if len(split) == 150:
                used.extend(map(int, ids))
            return super().collate(split, ids, epoch)

    monkeypatch.setattr(classification, "Classification", Recording)
    whole = train_here(recipe, tmp_path / "whole")
    assert used[:150] != used[150:300] != used[300:]
    used.clear()

    stops = sorted(random.Random(seed).sample(range(1, STEPS), 3))
    for stop in stops:
        done = stop_after(stop, lambda: train_here(recipe, tmp_path / "stopped"), tmp_path)
        assert done.code == 85
        status = done.status()
        assert (status["state"], status["exit_code"]) == ("stopped", 85)
        assert status["step"] >= stop
    done = train_here(recipe, tmp_path / "stopped")
    assert done.code == 0
    assert_same_run(whole, done)
    for epoch in range(3):
        assert sorted(used[150 * epoch : 150 * (epoch + 1)]) == list(range(150))


def stop_after(step: int, train, tmp_path: Path) -> Finished:
    """Trains, and sends this process SIGUSR1 once the run has written the line of `step`."""

    def watch() -> None:
        while not has_line(tmp_path / "stopped", step):
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGUSR1)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        return train()
    finally:
        thread.join()


@pytest.mark.distributed
def test_two_ranks_stop_together(recipe, launch, train_on_two_ranks, tmp_path):
    whole = train_on_two_ranks(recipe, tmp_path / "whole")
    assert whole.status()["state"] == "done", whole.output
    directory = tmp_path / "stopped"
    for stop in (7, 18):
        process = launch("train", str(recipe), "--run-dir", str(directory))
        wait_until(partial(has_line, directory, stop), process)
        # Only the second rank gets the signal; it would kill the launcher.
        os.kill(process.rank_pids()[1], signal.SIGUSR1)
        output, _ = process.communicate(timeout=120)
        status = Finished(directory, process.returncode, "").status()
        assert (status["state"], status["exit_code"]) == ("stopped", 85), output
        assert status["step"] >= stop
    done = train_on_two_ranks(recipe, directory)
    assert done.status()["state"] == "done", done.output
    assert_same_run(whole, done)


def assert_same_run(whole: Finished, done: Finished) -> None:
    for name, tensor in whole.weights(STEPS).items():
        assert torch.equal(tensor, done.weights(STEPS)[name]), name
    timeless = ("seconds", "tokens_per_second", "peak_memory_bytes", "ranks")
    for split in ("train", "validation"):
        lines = [
            [
                {key: v for key, v in line.items() if key not in timeless}
                for line in one.lines(split)
            ]
            for one in (whole, done)
        ]
        assert lines[0] == lines[1]


def has_line(directory: Path, step: int) -> bool:
    """Returns whether metrics.jsonl has the line of a step."""
    file = directory / "metrics.jsonl"
    return file.is_file() and f'"step": {step}, "epoch"' in file.read_text()
