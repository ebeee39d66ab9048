"""A run in a process of its own: signals reach it, and its own exit code comes back."""

import signal
import threading
import time

import pytest
from support.paths import program

from trainer.cli.child import collected_signals, run_child
from trainer.errors import ConfigError
from trainer.process.status import Status, read_status


def test_a_rank_that_outlives_its_launcher_is_waited_for(tmp_path):
    signals: list[int] = []

    def ask() -> None:
        deadline = time.monotonic() + 60
        while read_status(tmp_path).get("state") != "running" and time.monotonic() < deadline:
            time.sleep(0.02)
        signals.append(signal.SIGUSR1)

    thread = threading.Thread(target=ask)
    thread.start()
    code = run_child(program("outliving_rank", "launch", tmp_path), tmp_path, signals)
    thread.join()
    assert code == 85
    assert read_status(tmp_path) == {
        "state": "stopped",
        "exit_code": 85,
        "step": 7,
        "message": "once",
    }


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 85)])
def test_nothing_starts_after_a_signal(number, code, tmp_path):
    with collected_signals() as signals:
        signal.raise_signal(number)
        deadline = time.monotonic() + 60  # a thread delivers it
        while not signals and time.monotonic() < deadline:
            time.sleep(0.01)
        started = tmp_path / "started"
        assert run_child(["touch", str(started)], tmp_path, signals) == code
    assert not started.exists()


def test_signals_are_heard_in_the_block_only_and_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with collected_signals() as signals:
            signal.raise_signal(signal.SIGHUP)
            signal.raise_signal(signal.SIGTERM)
        assert signals == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("state", "status", "code"),
    [("none", 85, 3), ("", "none", 3), ("", 2, 2), ("", 0, 0)],
)
def test_the_code_is_that_of_the_status_if_this_command_wrote_it(state, status, code, tmp_path):
    Status(tmp_path).write("stopped", 85, 1, "an earlier one")
    command = program("written_status", tmp_path, state, status, 3)
    assert run_child(command, tmp_path, []) == code


def test_a_command_that_was_killed_has_the_code_of_a_shell(tmp_path):
    command = program("written_status", tmp_path, "running", "none", "killed")
    assert run_child(command, tmp_path, []) == 137
    status = read_status(tmp_path)
    assert (status["state"], status["exit_code"]) == ("failed", 137)
    assert "killed by SIGKILL, most often by the system for lack of memory" in status["message"]


def test_what_cannot_be_started_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError) as caught:
        run_child(["no-such-launcher"], tmp_path, [])
    assert (caught.value.key, caught.value.value) == ("--launcher", "no-such-launcher")
