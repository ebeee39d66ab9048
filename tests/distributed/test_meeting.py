"""Ranks that do not join are named in one sentence by every rank that did."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path

import pytest
from support.launches import Finished, free_port, launch_command, launch_environment
from support.paths import ROOT, program
from torch.distributed import HashStore, PrefixStore, TCPStore

from trainer.distributed import rendezvous
from trainer.distributed.rendezvous import _wait_for_all, meeting
from trainer.errors import LaunchError

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    return write_recipe(reviews_recipe)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def start() -> Generator[Start]:
    """Starts a command with environment variables; it is killed if it outlives the test."""
    started: list[subprocess.Popen[str]] = []

    def run(command: list[str], **variables: object) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**launch_environment(), **{name: str(v) for name, v in variables.items()}},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.fixture
def start_rank(start, recipe, tmp_path) -> Start:
    """Starts a rank as srun does, without a launcher: (rank, number of ranks, host, port)."""
    run = ("train", str(recipe), "--run-dir", str(tmp_path / "run"))

    def train(
        rank: int, num_ranks: int, host: str, port: int, *, seconds: int = 5
    ) -> "subprocess.Popen[str]":
        return start(
            [sys.executable, "-m", "trainer", *run],
            RANK=rank,
            WORLD_SIZE=num_ranks,
            MASTER_ADDR=host,
            MASTER_PORT=port,
            TRAINER_MEETING_SECONDS=seconds,
        )

    return train


@pytest.mark.distributed
def test_every_rank_names_the_ranks_that_do_not_join(start_rank, port, tmp_path):
    ranks = [start_rank(rank, 4, "127.0.0.1", port) for rank in (0, 2)]
    for rank in ranks:
        output, _ = rank.communicate(timeout=120)
        assert rank.returncode == 2, output
        assert "trainer: ranks 1 and 3 of 4 did not come within 5 seconds; " in output
        assert "Traceback" not in output
    status = Finished(tmp_path / "run", 2, "").status()
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert "ranks 1 and 3 of 4" in status["message"]


@pytest.mark.distributed
@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-node.invalid"])
def test_a_rank_with_a_wrong_address_reports_it(host, start_rank, port, tmp_path):
    main = start_rank(0, 2, "127.0.0.1", port)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # but does not listen
        elsewhere = closed.getsockname()[1]
        lost = start_rank(1, 2, host, elsewhere)
        output, _ = lost.communicate(timeout=120)
    assert lost.returncode == 2, output
    assert f"trainer: rank 1 cannot reach the main process at {host}:{elsewhere} within" in output
    assert "Traceback" not in output
    assert "frame #" not in output
    output, _ = main.communicate(timeout=120)
    assert main.returncode == 2, output
    assert "rank 1 of 2 did not come within 5 seconds" in output
    assert "rank 1 of 2" in Finished(tmp_path / "run", 2, "").status()["message"]


@pytest.mark.distributed
def test_ranks_that_meet_train(start_rank, port, tmp_path):
    ranks = [start_rank(rank, 2, "127.0.0.1", port) for rank in (1, 0)]
    for rank in ranks:
        output, _ = rank.communicate(timeout=300)
        assert rank.returncode == 0, output
    assert Finished(tmp_path / "run", 0, "").results()["processes"] == 2


@pytest.mark.distributed
def test_a_launched_rank_that_does_not_join_is_named(start, recipe, port, tmp_path):
    """Launchers wait for each other, but not for the ranks that they start."""
    place = ("--num_machines", "2", "--num_processes", "2", "--main_process_port", str(port))

    def launch(machine: str, *program: str) -> "subprocess.Popen[str]":
        options = (*place, "--main_process_ip", "127.0.0.1", "--machine_rank", machine)
        command = launch_command(config="ddp-multinode", options=options)
        return start([*command[:-2], *program], TRAINER_MEETING_SECONDS=5)

    directory = tmp_path / "run"
    train = ("-m", "trainer", "train", str(recipe), "--run-dir", str(directory))
    main, _ = launch("0", *train), launch("1", *program("ended")[1:])
    output, _ = main.communicate(timeout=120)
    assert main.returncode == 1, output
    sentence = "rank 1 of 2 did not come within 5 seconds"
    assert f"trainer: {sentence}" in output
    status = Finished(directory, 1, "").status()
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert sentence in status["message"]


@pytest.mark.distributed
def test_waiting_ranks_report_that_the_main_process_ended(start_rank, port):
    main, waiting = (start_rank(rank, 3, "127.0.0.1", port, seconds=60) for rank in (0, 1))
    while not listens(port):
        assert main.poll() is None
        time.sleep(0.05)
    store = PrefixStore("trainer/none/0", TCPStore("127.0.0.1", port, wait_for_workers=False))
    store.wait(["rank-1"])
    main.kill()
    output, _ = waiting.communicate(timeout=120)
    assert waiting.returncode == 2, output
    assert f"trainer: rank 1 lost the main process at 127.0.0.1:{port}" in output
    assert "Traceback" not in output


def listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.distributed
def test_ranks_that_are_restarted_meet_again(start):
    """The launcher keeps its store, which still holds their first meeting."""
    restarted = program("meeting_again")[1:]
    process = start(launch_command(options=("--max_restarts", "1"), program=restarted))
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    waited = re.search(r"rank 0, first False, waited (\S+)", output)
    assert waited is not None, output
    assert float(waited[1]) > 2


def test_a_rank_whose_time_is_up_when_all_have_joined_continues(monkeypatch):
    monkeypatch.setattr(rendezvous, "LINGER_SECONDS", 0.1)  # no other rank reads the decision
    store = PrefixStore("trainer", HashStore())
    store.set("rank-0", "node0")
    over = time.monotonic() - 1
    _wait_for_all(store, 1, 2, over, timedelta(seconds=1))
    another = PrefixStore("another", store)
    another.set("rank-1", "node1")
    with pytest.raises(LaunchError, match="rank 2 of 3 did not come within 1 second;"):
        _wait_for_all(another, 0, 3, over, timedelta(seconds=1))


@pytest.mark.parametrize(
    ("num_ranks", "missing"),
    [(2, "rank 1 of 2"), (3, "ranks 1 and 2 of 3"), (9, "ranks 1 to 8 of 9")],
)
def test_many_missing_ranks_are_named_as_a_range(num_ranks, missing, port, monkeypatch):
    set_place(monkeypatch, port, WORLD_SIZE=num_ranks, TRAINER_MEETING_SECONDS=0.1)
    with pytest.raises(LaunchError, match=f"^{missing} did not come within 0.1 seconds"), meeting():
        pass


@pytest.mark.parametrize(
    ("change", "key", "value", "sentence"),
    [
        (
            {"TRAINER_MEETING_SECONDS": "soon"},
            "TRAINER_MEETING_SECONDS",
            "soon",
            "TRAINER_MEETING_SECONDS=soon is not a number",
        ),
        (
            {"TRAINER_MEETING_SECONDS": "0"},
            "TRAINER_MEETING_SECONDS",
            "0",
            "TRAINER_MEETING_SECONDS=0 is not a number",
        ),
        ({"MASTER_ADDR": ""}, "MASTER_ADDR", "", "WORLD_SIZE is 2 and RANK=0 MASTER_ADDR= "),
        ({"RANK": "one"}, "MASTER_ADDR", "127.0.0.1", "RANK=one"),
    ],
)
def test_an_invalid_environment_is_refused(change, key, value, sentence, port, monkeypatch):
    set_place(monkeypatch, port, **change)
    with pytest.raises(LaunchError, match=sentence) as caught, meeting():
        pass
    assert (caught.value.key, caught.value.value) == (key, value)


def test_a_port_in_use_is_named(monkeypatch):
    with socket.socket() as other:
        other.bind(("0.0.0.0", 0))
        other.listen()
        port = other.getsockname()[1]
        set_place(monkeypatch, port)
        with pytest.raises(LaunchError, match="rank 0 cannot listen on") as caught, meeting():
            pass
    assert (caught.value.key, caught.value.value) == ("MASTER_PORT", port)


def set_place(monkeypatch: pytest.MonkeyPatch, port: int, **change: object) -> None:
    place = {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in {**place, **change}.items():
        monkeypatch.setenv(name, str(value))
