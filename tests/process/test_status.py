"""status.json says what the last command did, and never speaks over another process."""

import errno
import fcntl
import json
import os

import pytest

from trainer.errors import ConfigError, FileError, LaunchError
from trainer.process.status import Status, read_status
from trainer.process.stop_request import StopRequest


def test_the_status_comes_back(tmp_path):
    assert read_status(tmp_path) == {}
    Status(tmp_path, StopRequest()).write("running", None, None, "starting")
    Status(tmp_path, StopRequest()).write("stopped", 85, 7, "résumé")
    assert read_status(tmp_path) == {
        "state": "stopped",
        "exit_code": 85,
        "step": 7,
        "message": "résumé",
    }
    assert os.listdir(tmp_path) == ["status.json"]  # noqa: PTH208


def test_the_number_of_steps_stays_once_it_is_known(tmp_path):
    status = Status(tmp_path, StopRequest())
    status.begin()
    assert "num_steps" not in read_status(tmp_path)
    status.begin_training(3, 20)
    training = {"state": "running", "exit_code": None, "step": 3, "num_steps": 20}
    assert read_status(tmp_path) == {**training, "message": "training"}
    status.write("stopped", 85, 7, "asked to")
    assert read_status(tmp_path)["num_steps"] == 20


def test_a_status_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "status.json").write_text('{"state": "do')
    assert read_status(tmp_path) == {}


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    Status(tmp_path, StopRequest()).write("running", None, None, "starting")
    assert read_status(tmp_path) == {}


@pytest.mark.parametrize(
    ("error", "raised", "code"),
    [
        (ConfigError("mend it"), ConfigError, 2),
        (KeyboardInterrupt(), KeyboardInterrupt, 130),
        (OSError(errno.ENOSPC, "No space left on device"), FileError, 2),
        (RuntimeError("I/O error: File too large (os error 27)"), FileError, 2),
        (ZeroDivisionError("ours"), ZeroDivisionError, 1),
        # Of a single process it is no other rank that went away.
        (RuntimeError("Connection reset by peer"), RuntimeError, 1),
    ],
)
def test_a_failure_is_written_with_the_step_to_go_on_from(tmp_path, error, raised, code):
    for step in (3, 12):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    with pytest.raises(raised), Status(tmp_path, StopRequest()).reported():
        raise error
    status = read_status(tmp_path)
    assert (status["state"], status["exit_code"], status["step"]) == ("failed", code, 12)


@pytest.mark.parametrize(("state", "after"), [("done", "done"), ("stopped", "failed")])
def test_a_failure_leaves_a_finished_run_alone(tmp_path, state, after):
    Status(tmp_path, StopRequest()).write(state, 0, 5, "")
    with pytest.raises(ConfigError), Status(tmp_path, StopRequest()).reported():
        raise ConfigError("mend it")
    assert read_status(tmp_path)["state"] == after


def test_a_failure_leaves_a_running_process_alone(tmp_path):
    Status(tmp_path, StopRequest()).write("running", None, 5, "")
    with (tmp_path / ".lock").open("a") as lock:  # as another process holds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError), Status(tmp_path, StopRequest()).reported():
            raise ConfigError("mend it")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        ("[gloo] Connection closed by peer [127.0.0.1]:1234", "another rank ended"),
        ("Timed out waiting 1800000ms for recv operation", "not answered for 30 minutes"),
        ("Timed out waiting 14400000ms for send operation", "not answered for 4 hours"),
        ("Application timeout caused pair closure", "not answered in time"),
    ],
)
def test_a_rank_that_is_gone_or_hangs_is_named_as_such(error, sentence, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    status = Status(tmp_path, StopRequest())
    with pytest.raises(LaunchError, match=sentence), status.reported():
        raise RuntimeError(error)
    assert read_status(tmp_path)["exit_code"] == 2
    assert sentence in read_status(tmp_path)["message"]
