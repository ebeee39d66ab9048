"""A rank that fails alone ends the others, and the run reports its message."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.launches import Finished, wait_until
from support.step_recipes import of_task
from support.warm import WarmProcess

pytestmark = pytest.mark.distributed
Train = Callable[..., WarmProcess]


@pytest.fixture
def train(launch, tmp_path) -> Train:
    """Starts a run with a fault on two ranks: (fault, recipe file)."""

    def start(fault: str, recipe: Path, run: str | None = None, **options) -> WarmProcess:
        directory = run or str(tmp_path / "run")
        place = {"fault": fault, "READY": str(tmp_path / "ready"), **options}
        return launch("train", str(recipe), "--run-dir", directory, **place)

    return start


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    return write_recipe(reviews_recipe)


def test_an_error_of_one_rank_is_reported(recipe, train, tmp_path):
    process = train("one_rank_fails", recipe)
    output, _ = process.communicate(timeout=120)
    done = Finished(tmp_path / "run", process.returncode, output)
    assert done.code != 0
    status = done.status()
    assert (status["state"], status["exit_code"]) == ("failed", 2), output
    assert status["message"] == "rank 1: a row cannot be read; remove it"
    assert "trainer: rank 1: a row cannot be read; remove it" in output


def test_a_run_directory_that_ranks_do_not_share_is_refused(recipe, train, tmp_path):
    process = train("one_rank_is_elsewhere", recipe, "run", cwd=tmp_path)
    output, _ = process.communicate(timeout=120)
    done = Finished(tmp_path / "run", process.returncode, output)
    assert done.status()["exit_code"] == 2
    assert "choose a --run-dir that all machines share" in done.status()["message"]


@pytest.mark.parametrize("background", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_if_one_rank_cannot_write_all_stop_and_the_message_names_the_step(
    background, reviews_recipe, write_recipe, train, tmp_path
):
    """Rank 1 writes the larger file, that of the moments."""
    reviews_recipe["checkpoint"] |= {"async": background == "true"}
    process = train("one_rank_may_write_little", write_recipe(reviews_recipe))
    output, _ = process.communicate(timeout=120)
    status = Finished(tmp_path / "run", process.returncode, output).status()
    assert (status["state"], status["exit_code"]) == ("failed", 2), output
    assert "the checkpoint of step 5 cannot be written" in status["message"]
    assert "File too large" in status["message"]
    assert output.count("trainer: ") == 1
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("fault", ["one_rank_waits", "one_rank_waits,the_other_computes"])
def test_a_killed_rank_ends_the_others_within_a_minute(fault, recipe, train, tmp_path):
    """A rank that computes gets the launcher's SIGTERM before it notices that its peer is gone."""
    process = train(fault, recipe)
    ready = tmp_path / "ready"
    wait_until(ready.is_file, process)
    killed = time.monotonic()
    os.kill(int(ready.read_text()), signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert time.monotonic() - killed < 60
    status = Finished(tmp_path / "run", process.returncode, output).status()
    assert (status["state"], status["exit_code"]) == ("failed", 2), output
    assert "another rank ended" in status["message"]


def test_a_rank_that_hangs_in_training_ends_the_others_but_one_that_prepares_does_not(
    recipe, train, tmp_path
):
    """The main process prepares for twice as long as a step may take."""
    process = train(
        "the_main_process_prepares,one_rank_waits",
        recipe,
        PREPARATION_SECONDS="8",
        TRAINER_STEP_TIMEOUT_SECONDS="4",
    )
    run, ready = Finished(tmp_path / "run", 2, ""), tmp_path / "ready"
    wait_until(ready.is_file, process)
    hangs = time.monotonic()
    while run.status()["state"] == "running":
        assert time.monotonic() - hangs < 60
        time.sleep(0.1)
    os.kill(int(ready.read_text()), signal.SIGKILL)  # the launcher would first wait for 30 s
    output, _ = process.communicate(timeout=120)
    assert (run.status()["state"], run.status()["exit_code"]) == ("failed", 2), output
    assert run.status()["message"].startswith("a rank has not answered for 4 seconds: it hangs")
    assert "trainer: a rank has not answered for 4 seconds" in output
    assert "[rank0]: Traceback" not in output


def test_sharded_weights_keep_the_loss_from_holding_all_logits(train, write_recipe):
    """ZeRO-3's hooks pass on a different tensor from the one that the output layer returns."""
    process = train("all_logits_fail", write_recipe(of_task("packed")), config="cpu-2-zero3")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
