"""Killed anywhere, again and again, a run ends with the weights of the uninterrupted one."""

import json
import os
import random
import shutil
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from support.launches import Finished, launch_command, wait_until
from support.paths import PROGRAMS
from support.warm import WarmProcess, WarmServer

from trainer.checkpoints.store import CheckpointStore

pytestmark = pytest.mark.distributed

KILLABLE = PROGRAMS / "killable.py"
POINTS = "half flush rename renamed replace unlink rmtree prepare".split()
EVERY_RANK = ("half", "flush", "moment")  # only the main process reaches the others
STEPS, ROWS = 24, 120
SECONDS_TO_END = 60
slow = pytest.mark.slow


@dataclass
class Chain:
    """Commands in one run directory, all of which but the last are killed."""

    warm: WarmServer
    recipe: Path
    folder: Path
    config: str | None
    """None means one process without a launcher."""
    chance: random.Random
    attempts: int = 0
    killed_at: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.folder / "records").mkdir(parents=True)

    @property
    def directory(self) -> Path:
        return self.folder / "run"

    def start(self, *overrides: str, kill: str = "never:0:0") -> WarmProcess:
        self.attempts += 1
        settings = [part for override in overrides for part in ("--set", override)]
        program = [str(KILLABLE), "train", str(self.recipe), "--run-dir", str(self.directory)]
        if self.config is not None:
            command = launch_command(*program[1:], config=self.config, program=program[:1])
            program = command[1:]
        variables = {
            "RECORDS": str(self.folder / "records"),
            "ATTEMPT": str(self.attempts),
            "KILL": kill,
            # An empty cache: it can also be killed while it prepares the data.
            "TRAINER_CACHE": str(self.folder / "cache"),
        }
        return self.warm.start(*program, *settings, variables=variables)

    def finish(self, process: WarmProcess) -> Finished:
        output, _ = process.communicate(timeout=300)
        assert process.returncode is not None
        return Finished(self.directory, process.returncode, output)

    def kill_somewhere(self, seconds: float) -> None:
        """Starts a command that is killed at a point in the code or at a random moment.

        A command that never reaches that point runs to its end and is not counted.
        """
        chance = self.chance
        saved_before = self.has_saved()
        last_rank = 0 if self.config is None else 1
        point = chance.choice([*POINTS, "moment", "moment", "moment"])
        rank = chance.randint(0, last_rank) if point in EVERY_RANK else 0
        kill = f"{point}:{chance.randint(1, 4)}:{rank}"
        background = f"checkpoint.async={chance.choice(['true', 'false'])}"
        process = self.start(background, kill=kill)
        died = self.folder / "records" / f"died-{self.attempts}"
        try:
            if point == "moment":
                self._wait_for_start(process)
                time.sleep(chance.uniform(0, seconds))
                if process.poll() is None:
                    died.touch()
                self._kill(process, everyone=chance.random() < 0.5)
            begun = time.monotonic()
            process.wait(timeout=200)
            if point == "moment":
                assert time.monotonic() - begun < SECONDS_TO_END
            self._no_orphans(process)
        finally:
            process.kill_all()
        if died.exists():
            self.killed_at.append(kill)
        assert not saved_before or self.has_saved(), f"{kill} lost what was saved"

    def has_saved(self) -> bool:
        """Returns whether there is a checkpoint that the next command can resume from."""
        checkpoints = self.directory / "checkpoints"
        if not checkpoints.is_dir():
            return False
        with tempfile.TemporaryDirectory() as folder:  # so that the command itself recovers its own
            store = CheckpointStore(shutil.copytree(checkpoints, Path(folder) / "checkpoints"))
            store.recover()
            return store.newest()[0] is not None

    def examples(self) -> dict[int, list[int]]:
        """Returns the examples of each step in the last attempt that took it."""
        taken: dict[int, dict[int, list[int]]] = {}
        for file in (self.folder / "records").glob("rank-*.jsonl"):
            for text in file.read_text().splitlines():
                line = json.loads(text)
                attempts = taken.setdefault(line["step"], {})
                attempts.setdefault(line["attempt"], []).extend(line["ids"])
        return {step: attempts[max(attempts)] for step, attempts in taken.items()}

    def _wait_for_start(self, process: WarmProcess) -> None:
        num_ranks = 1 if self.config is None else 2
        names = [f"started-{self.attempts}-{rank}" for rank in range(num_ranks)]
        records = self.folder / "records"
        wait_until(lambda: all((records / name).exists() for name in names), process)

    def _kill(self, process: WarmProcess, *, everyone: bool) -> None:
        if everyone or self.config is None:
            process.kill_all()
            return
        with suppress(ProcessLookupError):  # it has ended by itself
            os.kill(self.chance.choice(process.rank_pids()), signal.SIGKILL)

    def _no_orphans(self, process: WarmProcess) -> None:
        wait_until(lambda: not any(map(is_alive, process.rank_pids())), seconds=SECONDS_TO_END)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


@pytest.fixture
def recipe(reviews_recipe: dict[str, Any], write_recipe) -> Path:
    reviews_recipe["data"]["source"]["num_rows"] = ROWS
    reviews_recipe["data"]["split"] = {"validation": {"ratio": 0.2, "seed": 1}, "test": None}
    reviews_recipe["batch"] |= {"global_batch_size": 8, "micro_batch_size": 2}
    reviews_recipe["schedule"]["epochs"] = 2
    reviews_recipe["evaluation"] |= {"baseline": False, "every": 5}
    reviews_recipe["checkpoint"] |= {"every_steps": 3, "keep_last": 1}
    reviews_recipe["tracking"]["log_every_steps"] = 1
    return write_recipe(reviews_recipe)


@pytest.mark.parametrize(
    ("config", "num_kills", "seed"),
    [
        (None, 3, 0),
        ("cpu-2", 3, 1),
        *(
            pytest.param(config, num_kills, seed, marks=slow)
            for config in (None, "cpu-2", "zero2", "zero3")
            for num_kills, seed in ((6, 0), *((14, seed) for seed in range(10, 14)))
        ),
    ],
)
def test_a_chain_of_kills(config, num_kills, seed, warm, recipe, tmp_path):
    whole = Chain(warm, recipe, tmp_path / "whole", config, random.Random(seed))
    process = whole.start()
    whole._wait_for_start(process)
    begun = time.monotonic()
    done = whole.finish(process)
    assert done.status()["state"] == "done", done.output
    seconds = time.monotonic() - begun

    chain = Chain(warm, recipe, tmp_path / "killed", config, random.Random(seed))
    while len(chain.killed_at) < num_kills:
        chain.kill_somewhere(seconds)
        if (chain.directory / "results.json").exists():  # it has finished: begin a new chain
            assert_equal(whole, chain, done)
            shutil.rmtree(chain.folder)
            chain.__post_init__()
    last = chain.finish(chain.start())
    assert last.status()["state"] == "done", (chain.killed_at, last.output)
    assert_equal(whole, chain, done)
    print(config, chain.killed_at)


def assert_equal(whole: Chain, chain: Chain, done: Finished) -> None:
    """Compares weights, moments, metrics and the examples of each step."""
    other = Finished(chain.directory, 0, "")
    if other.status()["state"] != "done":  # killed after it had written its results
        again = chain.finish(chain.start())
        assert again.status()["state"] == "done", again.output
    assert done.weights(STEPS).keys() == other.weights(STEPS).keys()
    for name, tensor in done.weights(STEPS).items():
        assert torch.equal(tensor, other.weights(STEPS)[name]), (name, chain.killed_at)
    for split in ("train", "validation"):
        mine, theirs = (
            [(line["step"], line["loss"]) for line in run.lines(split)] for run in (done, other)
        )
        assert mine == theirs, chain.killed_at
    examples = chain.examples()
    assert sorted(examples) == list(range(STEPS))
    half = STEPS // 2
    for epoch in range(2):
        used = [i for step in range(epoch * half, (epoch + 1) * half) for i in examples[step]]
        assert sorted(used) == list(range(ROWS - ROWS // 5)), chain.killed_at
    assert {step: sorted(ids) for step, ids in whole.examples().items()} == {
        step: sorted(ids) for step, ids in examples.items()
    }
