"""A signal at any moment of a process: it ends in a code that says so, and nothing is lost.

Moments count from the first line of `trainer/__main__.py`: before it runs, Python itself decides.
Most processes are forked from one that has imported the libraries; the others start anew.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Generator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import warm_server

import trainer

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
ROOT = Path(trainer.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
COLD = """
import pathlib, runpy, sys
pathlib.Path(sys.argv.pop(1)).touch()
sys.argv[0] = "trainer"
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
"""
LIMIT_SECONDS = 60.0
"""Within which a process has ended; on a machine that does nothing else it is one."""


class Commands:
    """Real processes of the command, forked from a warm one or started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, warm_server.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        self._number = 0

    def close(self) -> None:
        self._server.communicate()

    def run(
        self, *arguments: str, number: int = 0, after: float = 0.0, cold: bool = False
    ) -> tuple[int | None, str, float, float]:
        """Returns code, output, and seconds of its life and after the signal `number`."""
        self._number += 1
        begun = self.folder / f"begun-{self._number}"
        output = self.folder / f"output-{self._number}"
        child: subprocess.Popen[bytes] | None = None
        if cold:
            with output.open("w") as file:
                command = [sys.executable, "-c", COLD, str(begun), *arguments]
                child = subprocess.Popen(command, stdout=file, stderr=file, env=ENVIRONMENT)
            pid = child.pid
        else:
            asked = {"arguments": arguments, "output": str(output), "begun": str(begun)}
            pid = self._ask({**asked, "directory": str(self.folder)})["pid"]
        while not begun.exists():
            time.sleep(0.001)
        started = sent = time.monotonic()
        if number:
            time.sleep(0.003 + after)  # a moment, for the first line of the command
            sent = time.monotonic()
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                sent = 0.0
        if child is not None:
            try:
                code = child.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                code = None
        else:
            code = self._ask({"pid": pid, "seconds": LIMIT_SECONDS})["code"]
        end = time.monotonic()
        return code, output.read_text(errors="replace"), end - started, end - sent

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())


@pytest.fixture(scope="module")
def commands(tmp_path_factory) -> Generator[Commands]:
    found = Commands(tmp_path_factory.mktemp("commands"))
    yield found
    found.close()


def weights(directory: Path) -> str:
    return sha256((directory / "model" / "model.safetensors").read_bytes()).hexdigest()


def problems(directory: Path, code: int | None, output: str, number: int) -> list[str]:
    """Returns what is wrong with how a process ended that `number` was sent to."""
    asked = 130 if number == signal.SIGINT else 85
    found: list[str] = []
    if code not in (0, asked):
        found.append(f"code {code}")
    if "Traceback" in output or "Exception ignored" in output:
        found.append("a traceback")
    file = directory / "status.json"
    status = json.loads(file.read_text()) if file.exists() else None
    said = None if status is None else (status["state"], status["exit_code"])
    right = {0: ("done", 0), asked: ("stopped", asked)}
    if said != right.get(code or 0) and not (status is None and code == asked):
        found.append(f"status.json says {said}")
    return found


def fuzz(commands: Commands, recipe: Path, folder: Path, *, seed: int, warm: int, cold: int):
    """Returns a line for each process that ended wrongly, and how many ended with which code."""
    reference = folder / "reference"
    train = ("train", str(recipe), "--run-dir")
    assert commands.run(*train, str(folder / "first"))[0] == 0  # which fills the cache
    code, output, life, _ = commands.run(*train, str(reference))
    assert code == 0, output
    lives = {False: life}
    if cold:
        lives[True] = commands.run(*train, str(folder / "cold"), cold=True)[2]
    drawn, wrong, codes, slowest = random.Random(seed), list[str](), Counter[Any](), 0.0
    for index in range(warm + cold):
        anew = index >= warm
        number = drawn.choice(SIGNALS)
        after = drawn.uniform(0, 1.1 * lives[anew])
        directory = folder / f"run-{index}"
        code, output, _, seconds = commands.run(
            *train, str(directory), number=number, after=after, cold=anew
        )
        codes[f"{signal.Signals(number).name} {code}"] += 1
        slowest = max(slowest, seconds if code != 0 else 0)
        found = problems(directory, code, output, number)
        again, output, _, _ = commands.run(*train, str(directory))
        if again != 0 or weights(directory) != weights(reference):
            found.append(f"the same command then ends with {again}, or other weights")
        if found:
            kind = "new" if anew else "forked"
            place = f"{number!r} after {after:.2f} of {lives[anew]:.2f} s of a {kind} process"
            wrong.append(f"{place}: {', '.join(found)}; {output[-300:]}")
    print(f"\n{dict(sorted(codes.items()))}, slowest to end {slowest:.1f} s, {len(wrong)} wrong")
    return wrong


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["data"]["split"] = {"validation": {"ratio": 0.2, "seed": 1}}
    return write_recipe(reviews_recipe)


def test_a_signal_at_any_moment(commands, recipe, tmp_path):
    assert not fuzz(commands, recipe, tmp_path, seed=15, warm=8, cold=2)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_two_hundred_signals(commands, recipe, tmp_path):
    warm, cold = (
        int(os.environ.get(name, number)) for name, number in (("WARM", 150), ("COLD", 50))
    )
    wrong = fuzz(
        commands, recipe, tmp_path, seed=int(os.environ.get("SEED", 1)), warm=warm, cold=cold
    )
    assert not wrong, "\n".join(wrong)
