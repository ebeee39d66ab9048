"""A rank that fails alone takes the others with it, and its message is the one that stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from distributed_runs import ROOT, Finished, launch_environment

FAILING = """
import os
from trainer.errors import DataError
from trainer.tasks import Classification
{patch}
from trainer.cli import main
main()
"""
ONE_RANK_FAILS = """
collate = Classification.collate
def fail(self, split, ids, epoch):
    if os.environ["RANK"] == "1" and epoch == 1:
        raise DataError("a row cannot be read; mend it")
    return collate(self, split, ids, epoch)
Classification.collate = fail
"""
ONE_RANK_WAITS = """
import time
collate = Classification.collate
def wait(self, split, ids, epoch):
    if os.environ["RANK"] == "1" and epoch == 1:
        open(os.environ["READY"], "w").write(str(os.getpid()))
        time.sleep(600)
    return collate(self, split, ids, epoch)
Classification.collate = wait
"""


def start(patch: str, recipe: Path, tmp_path: Path) -> subprocess.Popen[str]:
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(patch=patch))
    config = ROOT / "accelerate_configs" / "cpu-2.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    return subprocess.Popen(
        [*launcher, str(script), "train", str(recipe), "--run-dir", str(tmp_path / "run")],
        env={**launch_environment(), "READY": str(tmp_path / "ready")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    return write_recipe(reviews_recipe)


def test_what_one_rank_alone_finds_wrong_is_said(recipe, tmp_path):
    process = start(ONE_RANK_FAILS, recipe, tmp_path)
    output, _ = process.communicate(timeout=120)
    done = Finished(tmp_path / "run", process.returncode, output)
    assert done.code != 0
    status = done.status()
    assert (status["state"], status["exit_code"]) == ("failed", 2), output
    assert status["message"] == "rank 1: a row cannot be read; mend it"
    assert "trainer: rank 1: a row cannot be read; mend it" in output


def test_a_killed_rank_ends_the_others_within_a_minute(recipe, tmp_path):
    process = start(ONE_RANK_WAITS, recipe, tmp_path)
    ready = tmp_path / "ready"
    while not (ready.is_file() and ready.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    killed = time.monotonic()
    os.kill(int(ready.read_text()), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    status = Finished(tmp_path / "run", process.returncode, output).status()
    assert (status["state"], status["exit_code"]) == ("failed", 2), output
    assert "another rank ended" in status["message"]
