"""Bad input ends with one sentence that says how to fix it, code 2 and a status.json."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.command_line import invoke

GOOD = [{"text": f"row {index} is good", "label": "yes"} for index in range(20)]
BAD = [{"text": f"row {index} is bad", "label": "no"} for index in range(20)]


@pytest.fixture
def rows_recipe(reviews_recipe, write_recipe, tmp_path):
    """A recipe over rows that a test gives: (train rows, **other splits) -> recipe file."""

    def write(train, *, columns=None, validation=None, **sections):
        files = {}
        for split, rows in (("train", train), ("validation", validation)):
            if rows is not None:
                files[split] = str(tmp_path / f"{split}.jsonl")
                Path(files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        reviews_recipe["data"] = {"source": {"files": files}, "columns": columns or {}}
        reviews_recipe["task"] = {"name": "classification"}
        return write_recipe(reviews_recipe | sections)

    return write


def train(recipe: Path, directory: Path, *arguments: str):
    return invoke("train", recipe, "--run-dir", directory, *arguments)


def refused(done, directory: Path, *parts: str) -> None:
    """Asserts that a command ended with a sentence with all `parts`, also in status.json."""
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    status = json.loads((directory / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    for part in parts:
        assert part in done.output
        assert part in status["message"]


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optimizer.lerning_rate=1", ("optimizer.lerning_rate", "optimizer.learning_rate")),
        ("batch.micro_batch_size=big", ("batch.micro_batch_size", "'big'")),
        ("batch.micro_batch_size=5", ("5 does not divide", "use 4 or 8")),
        ("evaluation.metric=f2", ("evaluation.metric", "f1")),
        ("precision=fp16", ("precision: fp16 needs a GPU",)),
        ("batch.max_seq_length=1000", ("64 positions",)),
        ("model.architecture.hiden_size=8", ("hiden_size", "did you mean hidden_size?")),
        ("data.source.builtin=review", ("there is no review", "did you mean reviews?")),
        ("data.columns.text=txt", ("no column txt", "did you mean text?")),
        ("data.split.test=tset", ("no split tset",)),
    ],
)
def test_recipe(override, parts, reviews_recipe, write_recipe, tmp_path):
    directory = tmp_path / "run"
    refused(train(write_recipe(reviews_recipe), directory, "--set", override), directory, *parts)


def test_missing_file(rows_recipe, tmp_path):
    recipe = rows_recipe(GOOD + BAD)
    (tmp_path / "train.jsonl").unlink()
    refused(train(recipe, tmp_path / "run"), tmp_path / "run", "there is no file", "train.jsonl")


@pytest.mark.parametrize("text", ["", "  ", None])
def test_empty_text(text, rows_recipe, tmp_path):
    rows = [*GOOD, {"text": text, "label": "no"}, *BAD]
    recipe = rows_recipe(rows, validation=GOOD)
    refused(train(recipe, tmp_path / "run"), tmp_path / "run", "the train split, row 21", "text")


def test_label_never_seen_in_training(rows_recipe, tmp_path):
    recipe = rows_recipe(GOOD + BAD, validation=[*GOOD, {"text": "so so", "label": "maybe"}])
    refused(
        train(recipe, tmp_path / "run"), tmp_path / "run", "validation split, row 21", "'maybe'"
    )


def test_model_that_does_not_exist_offline(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["model"] = {"name_or_path": "nobody/no-model"}
    done = train(write_recipe(reviews_recipe), tmp_path / "run")
    parts = ("model.name_or_path", "nobody/no-model", "trainer prepare RECIPE")
    refused(done, tmp_path / "run", *parts)


def test_run_directory_of_another_recipe(reviews_recipe, write_recipe, tmp_path):
    recipe, directory = write_recipe(reviews_recipe), tmp_path / "run"
    assert train(recipe, directory).exit_code == 0
    done = train(recipe, directory, "--set", "optimizer.learning_rate=0.5")
    assert done.exit_code == 2
    assert "optimizer.learning_rate is 0.001 there and 0.5 here" in done.output
    status = json.loads((directory / "status.json").read_text())
    assert status["state"] == "done", "the finished run keeps its own status"

    again = train(recipe, directory)
    assert again.exit_code == 0
    assert "finished" in again.output
    never = train(recipe, directory, "--resume", "never")
    assert never.exit_code == 2
    assert str(tmp_path / "run-2") in never.output


def test_full_disk_keeps_earlier_checkpoints(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["checkpoint"]["every_steps"] = 2
    recipe, directory = write_recipe(reviews_recipe), tmp_path / "run"
    watch_for(directory / "checkpoints" / "step-00000004", lambda: limit_files_to(50_000))
    try:
        done = train(recipe, directory)
    finally:
        limit_files_to(resource.RLIM_INFINITY)
    refused(done, directory, "ulimit -f", "a later command resumes from step 4")
    assert train(recipe, directory).exit_code == 0


def limit_files_to(size: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def watch_for(path: Path, act) -> None:
    def watch() -> None:
        while not path.exists():
            time.sleep(0.001)
        act()

    threading.Thread(target=watch, daemon=True).start()


def test_loss_that_is_not_finite_names_step_and_term(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["optimizer"] = {
        "name": "sgd",
        "learning_rate": 1e30,
        "max_grad_norm": None,
    }
    reviews_recipe["schedule"]["warmup_ratio"] = None
    done = train(write_recipe(reviews_recipe), tmp_path / "run")
    refused(done, tmp_path / "run", "cross_entropy", "of step", "optimizer.learning_rate")


def test_ctrl_c_saves_and_resumes(reviews_recipe, write_recipe, tmp_path):
    """In a separate process, while a second command finds the directory in use."""
    reviews_recipe["schedule"] = {"name": "linear", "epochs": 200}
    recipe, directory = write_recipe(reviews_recipe), tmp_path / "run"
    command = [sys.executable, "-m", "trainer", "train", str(recipe), "--run-dir", str(directory)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while not list((directory / "checkpoints").glob("step-*")):
        assert time.monotonic() < deadline, process.kill() or process.communicate()
        time.sleep(0.01)
    second = train(recipe, directory)
    assert second.exit_code == 2
    assert f"process {process.pid} is training in" in second.output
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    assert "Traceback" not in output
    status = json.loads((directory / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 130)
    assert (directory / "checkpoints" / f"step-{status['step']:08d}").is_dir()
