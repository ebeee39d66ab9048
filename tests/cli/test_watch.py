"""`trainer watch` shows what a run elsewhere does, and ends when the run ends, with its code."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.command_line import invoke
from support.paths import ROOT, program

from trainer.process import following
from trainer.process.run_directory import claim, is_held

CONFIG = "evaluation: {metric: accuracy, mode: max}\nschedule: {epochs: 2, steps: null}\n"


def train_line(step: int, /, **values: Any) -> str:
    line = {
        "step": step,
        "epoch": 1,
        "split": "train",
        "loss": 1 / step,
        "seconds": 0.5,
        "tokens_per_second": 2000.0,
        "peak_memory_bytes": 3 * 10**9,
    }
    return json.dumps({**line, **values}) + "\n"


def evaluation_line(step: int, accuracy: float, /, **values: Any) -> str:
    line = {
        "step": step,
        "epoch": 0,
        "split": "validation",
        "loss": 0.7,
        "accuracy": accuracy,
        "seconds": 0.5,
        "train_loss": None,
        "peak_memory_bytes": 1,
    }
    return json.dumps({**line, **values}) + "\n"


class Written:
    """A run directory that the test writes as a run does."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def begin(self) -> None:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "config.yaml").write_text(CONFIG)
        self.status("running", None, "training")

    def status(self, state: str, code: int | None, message: str, **more: Any) -> None:
        status = {"state": state, "exit_code": code, "step": 0, "num_steps": 20, **more}
        staging = self.directory / ".staging"
        staging.write_text(json.dumps({**status, "message": message}))
        staging.replace(self.directory / "status.json")

    def add(self, text: str) -> None:
        with (self.directory / "metrics.jsonl").open("a") as file:
            file.write(text)

    def replace(self, text: str) -> None:
        staging = self.directory / ".staging"
        staging.write_text(text)
        staging.replace(self.directory / "metrics.jsonl")


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "run")


@contextmanager
def watching(directory: Path) -> Generator[Callable[[str], str]]:
    """Context manager: watches in a process of its own; yields a function that returns the output
    once it contains a text."""
    command = [sys.executable, "-m", "trainer", "watch", str(directory), "--interval", "0.05"]
    with subprocess.Popen(
        command,
        cwd=directory.parent,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        output: list[bytes] = []
        stream = process.stdout
        assert stream is not None
        reader = threading.Thread(target=lambda: output.extend(iter(stream.readline, b"")))
        reader.start()

        def wait_for(text: str) -> str:
            end = time.monotonic() + 30
            while text not in (shown := b"".join(output).decode()):
                assert time.monotonic() < end, shown
                time.sleep(0.01)
            return shown

        try:
            yield wait_for
        finally:
            process.kill()
            reader.join()


def test_a_run_is_followed_from_before_its_start_to_its_end(written):
    with watching(written.directory) as wait_for:
        wait_for("waiting for a run to begin in")
        written.begin()
        written.add(evaluation_line(0, 0.5))
        wait_for("validation after step 0: loss 0.7000  accuracy 0.5000\n")
        written.add(train_line(5) + train_line(10)[:30])
        wait_for("step 5/20  loss 0.2000  accuracy 0.5000  2,000 tokens/s  3 GB")
        assert "step 10" not in wait_for("")
        written.add(train_line(10)[30:] + evaluation_line(10, 0.875) + train_line(15))
        wait_for("step 10/20  loss 0.1000  accuracy 0.8750")
        wait_for("validation after step 10: loss 0.7000  accuracy 0.8750\nstep 15/20")
        written.status("done", 0, "done", step=20)
        shown = wait_for("done after step 20\n")
        assert shown.count("waiting") == shown.count("step 5/20") == 1


def test_lines_that_a_resumed_run_cut_are_taken_again(written):
    written.begin()
    written.add(evaluation_line(0, 0.5) + train_line(5) + train_line(10) + evaluation_line(10, 0.9))
    with watching(written.directory) as wait_for:
        shown = wait_for("step 10/20  loss 0.1000  accuracy 0.9000")
        assert "step 5/20" not in shown
        written.replace(evaluation_line(0, 0.5) + train_line(5))
        wait_for("step 5/20  loss 0.2000  accuracy 0.5000")
        written.add(train_line(6))
        wait_for("step 6/20")


@pytest.mark.parametrize(
    ("state", "code", "message", "shown"),
    [
        ("done", 0, "done", "done after step 20\n"),
        ("stopped", 85, "stopped at step 9 of 20", "stopped: stopped at step 9 of 20\n"),
        ("stopped", 130, "stopped at step 9 of 20", "stopped: stopped at step 9 of 20\n"),
        ("failed", 2, "no\x1b[31m\nroom", "failed: no [31m\nroom\n"),
        ("failed", 1, "ValueError()", "failed: ValueError()\n"),
        ("failed", None, "old", "failed: old\n"),
    ],
)
def test_a_run_that_has_ended_is_shown_at_once(written, state, code, message, shown):
    written.begin()
    written.add(train_line(5) + evaluation_line(5, 0.5) + train_line(10))
    written.status(state, code, message, step=20)
    ended = invoke("watch", written.directory, "--interval", "60")
    assert ended.exit_code == (1 if code is None else code)
    assert ended.stdout.endswith(shown)
    assert ended.stdout.startswith("validation after step 5: loss 0.7000  accuracy 0.5000\nstep 10")


def test_a_finished_run_of_the_trainer_is_shown(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["data"]["source"]["num_rows"] = 80
    directory = tmp_path / "run"
    trained = invoke("train", write_recipe(reviews_recipe), "--run-dir", directory)
    assert trained.exit_code == 0
    lines = trained.stdout.splitlines()
    (last,) = [line for line in lines if line.startswith("step 10/10  loss ")]
    ended = invoke("watch", directory)
    assert ended.exit_code == 0
    assert last.rpartition("  ")[0] in ended.stdout
    assert ended.stdout.endswith("done after step 10\n")


def test_an_old_run_takes_its_number_of_steps_from_the_recipe(written):
    written.begin()
    (written.directory / "config.yaml").write_text(CONFIG.replace("null", "40"))
    status = {"state": "done", "exit_code": 0, "step": 10, "message": "done"}
    (written.directory / "status.json").write_text(json.dumps(status))
    written.add(train_line(5))
    assert "step 5/40  loss" in invoke("watch", written.directory).stdout
    (written.directory / "config.yaml").unlink()
    assert "step 5/?  loss" in invoke("watch", written.directory).stdout


@pytest.mark.parametrize("config", ["", "- 1", "evaluation: 3\nschedule: [4]", "{", "a: &b [*b]"])
def test_a_damaged_recipe_leaves_out_what_it_would_say(written, config):
    written.begin()
    (written.directory / "config.yaml").write_text(config)
    written.add(evaluation_line(0, 0.5) + train_line(5))
    written.status("done", 0, "done", step=5)
    ended = invoke("watch", written.directory)
    assert ended.exit_code == 0
    assert "step 5/20  loss 0.2000  2,000 tokens/s" in ended.stdout


@pytest.mark.parametrize(
    "line",
    [
        "\n",
        "{}\n",
        "[1]\n",
        "\xff\n",
        '{"step": 1',
        train_line(3, step="x"),
        train_line(3, epoch=9),
    ],
)
def test_a_damaged_line_is_left_out(written, line):
    written.begin()
    written.add(train_line(2) + line)
    written.status("done", 0, "done", step=2)
    ended = invoke("watch", written.directory)
    assert ended.exit_code == 0
    assert ended.stdout.startswith("step 2/20  loss 0.5000")


def test_a_value_of_another_type_is_left_out(written):
    written.begin()
    written.add(train_line(2, loss="low", peak_memory_bytes=None))
    written.status("done", 0, "done", step=2)
    assert invoke("watch", written.directory).stdout.startswith("step 2/20  2,000 tokens/s  ")


def test_another_directory_is_one_sentence_and_code_2(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing of a run")
    for place in (tmp_path, tmp_path / "notes.txt"):
        ended = invoke("watch", place)
        assert ended.exit_code == 2
        assert "holds no run" in ended.stderr or "is not a directory" in ended.stderr
        assert "Traceback" not in ended.output
    assert invoke("watch", tmp_path, "--interval", "0").exit_code == 2


def test_a_killed_run_ends_the_watch(written, monkeypatch):
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.2)
    written.begin()
    (written.directory / ".lock").touch()
    ended = invoke("watch", written.directory, "--interval", "0.05")
    assert ended.exit_code == 1
    assert ended.stdout == "failed: the process of the run is gone, and did not write why\n"


def test_a_silent_run_that_holds_its_directory_goes_on(written, monkeypatch):
    monkeypatch.setattr(following, "SILENT_SECONDS", 0.2)
    written.begin()
    with claim(written.directory):
        assert is_held(written.directory)
        end = threading.Timer(1.0, lambda: written.status("stopped", 85, "asked to"))
        end.start()
        ended = invoke("watch", written.directory, "--interval", "0.05")
        end.join()
    assert ended.exit_code == 85
    assert not is_held(written.directory)


def test_a_terminal_shows_one_bar_and_ctrl_c_ends_the_watch(written):
    written.begin()
    written.add(evaluation_line(0, 0.5) + train_line(5) + train_line(10))
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 160))
    command = [sys.executable, "-m", "trainer", "watch", str(written.directory)]
    with subprocess.Popen(
        [*command, "--interval", "0.05"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=slave,
        stderr=slave,
    ) as process:
        shown = ""

        def wait_for(text: str) -> None:
            nonlocal shown
            while text not in shown:
                assert select.select([master], [], [], 30)[0], shown
                shown += os.read(master, 4096).decode()

        wait_for("10/20")
        wait_for("loss 0.1000, accuracy 0.5000, 2,000 tokens/s, 3 GB")
        written.add(train_line(15))
        wait_for("15/20")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130, shown
    os.close(master)
    os.close(slave)
    status = json.loads((written.directory / "status.json").read_text())
    assert status["state"] == "running"


def test_watching_imports_nothing_slow(written):
    written.begin()
    written.add(train_line(5))
    written.status("done", 0, "done")
    done = subprocess.run(
        program("heavy_imports", "watch", written.directory), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not {"torch", "accelerate", "datasets", "transformers"} & set(
        done.stdout.splitlines()[-1].split()
    )
