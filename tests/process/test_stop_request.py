"""A run notices requests to stop, even if its main thread is busy."""

import os
import signal
import subprocess
import threading
import time

import pytest
from support.paths import program
from torch.distributed import TCPStore

from trainer.errors import DONE, ConfigError, LaunchError
from trainer.process import stop_request
from trainer.process.stop_request import StopRequest, end_of_time, listen


def never() -> None:
    raise AssertionError("the main thread was there")


def send(*numbers: int, after: float = 0.0) -> None:
    """Sends signals to this process a little later, one after the other."""

    def work() -> None:
        for number in numbers:
            time.sleep(after)
            os.kill(os.getpid(), number)

    threading.Thread(target=work, daemon=True).start()


def wait_for(stop: StopRequest) -> None:
    deadline = time.monotonic() + 10
    while not stop.requested:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 85), (signal.SIGUSR1, 85), (signal.SIGINT, 130)]
)
def test_in_training_a_signal_waits_for_the_step_boundary(number, code):
    stop, before = StopRequest(), signal.getsignal(number)
    with listen(stop, never), stop.at_boundaries():
        assert not stop.requested
        send(number)
        wait_for(stop)
        time.sleep(0.1)  # and nothing is raised
        assert not stop.leaving
    assert stop.code == code
    assert signal.getsignal(number) is before


def test_the_code_of_a_run_that_is_done_stays():
    stop = StopRequest()
    stop.begin_shutdown()
    stop.code = DONE
    stop.ask("SIGINT")
    assert stop.code == DONE


def test_before_and_after_it_the_run_leaves_at_once_also_out_of_a_system_call():
    """The thread that hears ends the process; an exception would be lost in a library."""
    stop, gave_up = StopRequest(), threading.Event()
    begun = time.monotonic()
    with listen(stop, gave_up.set):
        send(signal.SIGUSR1, after=0.2)
        assert gave_up.wait(10)
    assert stop.code == 85
    assert time.monotonic() - begun < 10


def test_a_closed_terminal_stops_as_well_but_not_under_nohup():
    stop, gave_up = StopRequest(), threading.Event()
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup, too
    try:
        with listen(stop, gave_up.set):
            send(signal.SIGHUP)
            assert gave_up.wait(10)
        assert (stop.reason, stop.code) == ("SIGHUP", 85)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        with listen(StopRequest(), never):
            send(signal.SIGHUP)
            time.sleep(0.3)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_launcher_passes_on_is_the_same_signal():
    stop = StopRequest()
    with listen(stop, never), stop.at_boundaries():
        send(signal.SIGTERM, signal.SIGTERM, signal.SIGINT, after=0.05)
        wait_for(stop)
        time.sleep(0.5)
        assert not stop.leaving


def test_a_later_signal_does_not_wait(monkeypatch):
    monkeypatch.setattr(stop_request, "SAME_SECONDS", 0.2)
    stop, gave_up = StopRequest(), threading.Event()
    with listen(stop, gave_up.set), stop.at_boundaries():
        send(signal.SIGTERM, signal.SIGTERM, after=0.5)
        assert gave_up.wait(10)


def test_the_first_signal_after_another_reason_is_not_a_second_one(monkeypatch):
    """A job that saves because its time ends is told so by SLURM a little later."""
    monkeypatch.setattr(stop_request, "SAME_SECONDS", -1)
    stop = StopRequest()
    with stop.at_boundaries():
        stop.ask("the time limit")
        stop.ask("SIGUSR1")
        assert not stop.leaving
        assert stop.reason == "the time limit"
        stop.ask("SIGUSR1")
        assert stop.leaving


def test_a_run_that_is_ending_is_left_alone():
    stop = StopRequest()
    with listen(stop, never):
        stop.begin_shutdown()
        send(signal.SIGTERM)
        wait_for(stop)
        time.sleep(0.1)


def test_a_main_thread_that_does_not_come_back_is_given_up():
    """It waits in C, as in a collective, during which Python runs no signal handler."""
    done = subprocess.run(
        program("blocked_main_thread"), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (85, "gave up\n"), done.stderr


@pytest.mark.parametrize(
    ("variables", "reason"),
    [({"ACCELERATE_MIXED_PRECISION": "no"}, "its launcher is gone"), ({}, "None")],
)
def test_a_rank_whose_launcher_died_stops_and_a_process_of_nohup_does_not(
    variables, reason, tmp_path
):
    file = tmp_path / "reason"
    command = program("dying_launcher", *program("training_rank", file)[1:])
    clean = {k: v for k, v in os.environ.items() if k != "ACCELERATE_MIXED_PRECISION"}
    subprocess.run(command, env={**clean, **variables}, check=True, timeout=60)
    deadline = time.monotonic() + 30
    while not (file.is_file() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert file.read_text() == reason


def test_a_rank_that_leaves_is_heard_by_the_others():
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    leaves, stays = StopRequest(), StopRequest()
    for stop in (leaves, stays):
        stop.share(TCPStore("127.0.0.1", store.port, is_master=False))
    with stays.at_boundaries():
        stays.poll_peers()
        assert not stays.leaving
        leaves.tell_peers()
        deadline = time.monotonic() + 10
        while not stays.leaving:  # the server may answer a check before it has read what was set
            assert time.monotonic() < deadline, "there is nobody left to save with"
            stays.poll_peers()


def test_who_insists_ends_also_a_run_that_hangs_while_it_ends():
    done = subprocess.run(program("hanging_end"), timeout=30, check=False)
    assert done.returncode == 85


@pytest.mark.parametrize(
    ("duration", "seconds"), [("90s", 90), ("45m", 2700), ("1.5h", 5400), ("1:30:00", 5400)]
)
def test_a_time_limit(duration, seconds, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_END_TIME", raising=False)
    end = end_of_time(duration)
    assert end is not None
    assert abs(end - time.time() - seconds) < 5


def test_the_earlier_of_two_ends_counts(monkeypatch):
    assert end_of_time(None) is None
    soon = int(time.time()) + 60
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(soon))
    assert end_of_time(None) == soon
    assert end_of_time("10h") == soon
    end = end_of_time("10s")
    assert end is not None
    assert end < soon


@pytest.mark.parametrize("wrong", ["90", "soon", "1:90:00", "-5m"])
def test_invalid_times(wrong, monkeypatch):
    with pytest.raises(ConfigError, match="not a duration; write it like 90s") as limit:
        end_of_time(wrong)
    assert (limit.value.key, limit.value.value) == ("--time-limit", wrong)
    monkeypatch.setenv("SLURM_JOB_END_TIME", "tomorrow")
    with pytest.raises(LaunchError) as job:
        end_of_time(None)
    assert (job.value.key, job.value.value) == ("SLURM_JOB_END_TIME", "tomorrow")


def test_time_is_left_for_a_step_and_a_save(monkeypatch):
    monkeypatch.setattr(stop_request, "MARGIN_SECONDS", 0)
    stop = StopRequest()
    stop.end = time.time() + 100
    stop.reserve_time(10, step=60)
    stop.reserve_time(10, step=1)
    assert not stop.requested
    stop.reserve_time(45, step=1)
    assert stop.requested
    assert (stop.reason, stop.code) == ("the time limit", 85)
