"""A signal at any moment of a process: it ends in a code that says so, and nothing is lost.

Moments count from the first line of `trainer/__main__.py`: before it runs, Python itself decides.
Most processes are forked from one that has imported the libraries; the others start anew.
"""

import json
import os
import random
import signal
from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from support.commands import Commands

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


def weights(directory: Path) -> str:
    return sha256((directory / "model" / "model.safetensors").read_bytes()).hexdigest()


def problems(directory: Path, code: int | None, output: str, number: int) -> list[str]:
    """Returns what is wrong with how a process ended that `number` was sent to."""
    stopped = 130 if number == signal.SIGINT else 85
    wrong: list[str] = []
    if code not in (0, stopped):
        wrong.append(f"code {code}")
    if "Traceback" in output or "Exception ignored" in output:
        wrong.append("a traceback")
    file = directory / "status.json"
    status = json.loads(file.read_text()) if file.exists() else None
    end = None if status is None else (status["state"], status["exit_code"])
    expected = {0: ("done", 0), stopped: ("stopped", stopped)}
    if end != expected.get(code or 0) and not (status is None and code == stopped):
        wrong.append(f"status.json says {end}")
    return wrong


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
        is_cold = index >= warm
        number = drawn.choice(SIGNALS)
        after = drawn.uniform(0, 1.1 * lives[is_cold])
        directory = folder / f"run-{index}"
        code, output, _, seconds = commands.run(
            *train, str(directory), number=number, after=after, cold=is_cold
        )
        codes[f"{signal.Signals(number).name} {code}"] += 1
        slowest = max(slowest, seconds if code != 0 else 0)
        faults = problems(directory, code, output, number)
        again, output, _, _ = commands.run(*train, str(directory))
        if again != 0 or weights(directory) != weights(reference):
            faults.append(f"the same command then ends with {again}, or other weights")
        if faults:
            kind = "new" if is_cold else "forked"
            place = f"{number!r} after {after:.2f} of {lives[is_cold]:.2f} s of a {kind} process"
            wrong.append(f"{place}: {', '.join(faults)}; {output[-300:]}")
    print(f"\n{dict(sorted(codes.items()))}, slowest to end {slowest:.1f} s, {len(wrong)} wrong")
    return wrong


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["schedule"]["epochs"] = 1
    reviews_recipe["data"]["split"] = {"validation": {"ratio": 0.2, "seed": 1}}
    return write_recipe(reviews_recipe)


@pytest.mark.distributed
def test_a_signal_at_any_moment(commands, recipe, tmp_path):
    assert not fuzz(commands, recipe, tmp_path, seed=15, warm=6, cold=1)


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
