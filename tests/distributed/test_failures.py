"""A rank that fails alone takes the others with it, and its message is the one that stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.launches import ROOT, Finished, launch_environment
from test_cut_of_the_step import TASKS, recipe_of

pytestmark = pytest.mark.distributed
FAILING = """
import os
from trainer.errors import DataError
from trainer.tasks.classification.task import Classification
{patch}
from trainer.cli.app import main
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
THE_OTHER_COMPUTES = """
import time
computed = Classification.collate
def compute(self, split, ids, epoch):
    if os.environ["RANK"] == "0" and os.path.exists(os.environ["READY"]):
        time.sleep(4)
    return computed(self, split, ids, epoch)
Classification.collate = compute
"""
THE_MAIN_PROCESS_PREPARES = """
import time
build = Classification.build.__func__
def prepare(cls, *arguments):
    if os.environ["RANK"] == "0":
        time.sleep(12)
    return build(cls, *arguments)
Classification.build = classmethod(prepare)
"""


ONE_RANK_IS_ELSEWHERE = """
from trainer import run_directory
run_directory.LAG_SECONDS = 1
if os.environ["RANK"] == "1":
    os.makedirs("elsewhere", exist_ok=True)
    os.chdir("elsewhere")
"""
ONE_RANK_MAY_WRITE_LITTLE = """
import resource
if os.environ["RANK"] == "1":
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
"""
ALL_LOGITS_FAIL = """
from trainer.tasks import vocabulary
def fail(*_):
    raise AssertionError("all logits at once")
vocabulary._plain = fail
"""


def start(
    patch: str,
    recipe: Path,
    tmp_path: Path,
    config: str = "cpu-2",
    run: str | None = None,
    cwd: Path = ROOT,
    **variables: str,
) -> subprocess.Popen[str]:
    script = tmp_path / "failing.py"
    script.write_text(FAILING.format(patch=patch))
    file = ROOT / "accelerate_configs" / f"{config}.yaml"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(file)]
    return subprocess.Popen(
        [*launcher, str(script), "train", str(recipe), "--run-dir", run or str(tmp_path / "run")],
        cwd=cwd,
        env={**launch_environment(), "READY": str(tmp_path / "ready"), **variables},
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


def test_a_folder_that_ranks_do_not_share_is_refused(recipe, tmp_path):
    process = start(ONE_RANK_IS_ELSEWHERE, recipe, tmp_path, run="run", cwd=tmp_path)
    output, _ = process.communicate(timeout=120)
    done = Finished(tmp_path / "run", process.returncode, output)
    assert done.status()["exit_code"] == 2
    assert "choose a --run-dir that all machines share" in done.status()["message"]


@pytest.mark.parametrize("background", ["true", pytest.param("false", marks=pytest.mark.slow)])
def test_where_one_rank_cannot_write_all_stop_with_the_step_to_go_on_from(
    background, reviews_recipe, write_recipe, tmp_path
):
    """Rank 1 has the larger file, that of the moments."""
    reviews_recipe["checkpoint"] |= {"async": background == "true"}
    process = start(ONE_RANK_MAY_WRITE_LITTLE, write_recipe(reviews_recipe), tmp_path)
    output, _ = process.communicate(timeout=120)
    status = Finished(tmp_path / "run", process.returncode, output).status()
    assert (status["state"], status["exit_code"]) == ("failed", 2), output
    assert "the checkpoint of step 5 cannot be written" in status["message"]
    assert "File too large" in status["message"]
    assert output.count("trainer: ") == 1
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("meanwhile", ["", THE_OTHER_COMPUTES], ids=["waits", "computes"])
def test_a_killed_rank_ends_the_others_within_a_minute(meanwhile, recipe, tmp_path):
    """One that computes hears SIGTERM of the launcher before it finds that the rank is gone."""
    process = start(ONE_RANK_WAITS + meanwhile, recipe, tmp_path)
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


def test_a_rank_that_hangs_in_training_ends_the_others_and_one_that_prepares_does_not(
    recipe, tmp_path
):
    """The main process prepares alone for twice as long as a step may take."""
    process = start(
        THE_MAIN_PROCESS_PREPARES + ONE_RANK_WAITS,
        recipe,
        tmp_path,
        TRAINER_STEP_TIMEOUT_SECONDS="6",
    )
    run, ready = Finished(tmp_path / "run", 2, ""), tmp_path / "ready"
    while not (ready.is_file() and ready.read_text()):
        assert process.poll() is None
        time.sleep(0.1)
    hangs = time.monotonic()
    while run.status()["state"] == "running":
        assert time.monotonic() - hangs < 60
        time.sleep(0.1)
    os.kill(int(ready.read_text()), signal.SIGKILL)  # the launcher would ask for 30 s first
    output, _ = process.communicate(timeout=120)
    assert (run.status()["state"], run.status()["exit_code"]) == ("failed", 2), output
    assert run.status()["message"].startswith("a rank has not answered for 6 seconds: it hangs")
    assert "trainer: a rank has not answered for 6 seconds" in output
    assert "[rank0]: Traceback" not in output


def test_sharded_weights_keep_the_loss_from_holding_all_logits(write_recipe, tmp_path):
    """ZeRO-3's hooks give out another tensor than the output layer returns."""
    case = TASKS["packed"]
    recipe = recipe_of(case["model"], case["tokenizer"], "sgd")
    recipe |= {"task": case["task"], "data": {**case["data"], "max_rows": 100}}
    recipe["batch"] |= {"max_seq_length": 96, "micro_batch_size": 4}
    process = start(ALL_LOGITS_FAIL, write_recipe(recipe), tmp_path, config="cpu-2-zero3")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
