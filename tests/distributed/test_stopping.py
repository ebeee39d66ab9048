"""Asked to stop anywhere, on one rank, all ranks stop, and nothing is lost or done twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from support.launches import ROOT, Finished, launch_environment

pytestmark = pytest.mark.distributed
SLOW = """
import os, time
from trainer.checkpoints import shards
from trainer.tasks.classification.task import Classification

def ready(number):
    if not os.path.exists(os.environ["READY"]) and os.environ["RANK"] == os.environ["SLOW_RANK"]:
        open(os.environ["READY"] + ".new", "w").write(number or str(os.getpid()))
        os.rename(os.environ["READY"] + ".new", os.environ["READY"])

{patch}
from trainer.cli.app import main
main()
"""
PREPARATION = """
build = Classification.build.__func__
def prepare(cls, *arguments):
    ready(None)
    time.sleep(60 if os.environ["RANK"] == "0" else 0)
    return build(cls, *arguments)
Classification.build = classmethod(prepare)
"""
EVALUATION = """
collate = Classification.collate
def slowly(self, split, ids, epoch):
    if epoch == 0:
        ready(None)
        time.sleep(0.1)
    return collate(self, split, ids, epoch)
Classification.collate = slowly
"""
SAVING = """
write = shards._write
def slowly(file, shard):
    ready(None)
    time.sleep(1)
    return write(file, shard)
shards._write = slowly
"""


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["data"]["split"] = {"validation": {"ratio": 0.5, "seed": 1}}
    reviews_recipe["batch"]["micro_batch_size"] = 2
    reviews_recipe["evaluation"]["baseline"] = False
    reviews_recipe["checkpoint"] = {"every_steps": 8, "keep_last": 1}
    reviews_recipe["tracking"]["log_every_steps"] = 1
    return write_recipe(reviews_recipe)


def stop_in(patch: str, recipe: Path, tmp_path: Path, *, rank: int, config: str) -> Finished:
    """Trains until one rank is where `patch` makes it slow, and asks that rank alone to stop."""
    script, ready = tmp_path / "slow.py", tmp_path / "ready"
    script.write_text(SLOW.format(patch=patch))
    ready.unlink(missing_ok=True)
    file = ROOT / "accelerate_configs" / f"{config}.yaml"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)),
            *(str(script), "train", str(recipe), "--run-dir", str(tmp_path / "run")),
        ],
        cwd=ROOT,
        env={**launch_environment(), "READY": str(ready), "SLOW_RANK": str(rank)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not ready.is_file():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    asked = time.monotonic()
    os.kill(int(ready.read_text()), signal.SIGUSR1)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - asked < 30
    stopped = Finished(tmp_path / "run", process.returncode, output)
    assert (stopped.status()["state"], stopped.status()["exit_code"]) == ("stopped", 85), output
    assert 'slow.py", line' not in output  # no traceback of ours
    return stopped


@pytest.mark.parametrize("config", ["cpu-2", pytest.param("zero3", marks=pytest.mark.slow)])
def test_a_signal_to_one_rank_of_two(config, recipe, train_on_two_ranks, tmp_path):
    whole = train_on_two_ranks(recipe, tmp_path / "whole", config=config)
    stopped = stop_in(PREPARATION, recipe, tmp_path, rank=1, config=config)
    assert stopped.status()["step"] is None
    assert "starts anew" in stopped.status()["message"]
    stopped = stop_in(EVALUATION, recipe, tmp_path, rank=1, config=config)
    assert stopped.status()["step"] == 5
    assert stopped.lines("validation") == []
    stopped = stop_in(SAVING, recipe, tmp_path, rank=0, config=config)
    assert stopped.status()["step"] == 5  # evaluated now, it is the best, and saved again
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
