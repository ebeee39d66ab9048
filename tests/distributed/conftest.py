"""Runs of the real command: in this process, or on two gloo ranks through `accelerate launch`."""

import hashlib
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import pytest
from support.launches import FAULTS, Finished, launch_command, write_uneven_rows
from support.warm import WarmProcess, WarmServer


@pytest.fixture
def train_here() -> Callable[..., Finished]:
    """Trains in this process: (recipe file, run directory, overrides…) -> Finished."""
    return _train_here


def _train_here(recipe: Path, directory: Path, *overrides: str, resume: str = "auto") -> Finished:
    from trainer.cli.train import train

    return Finished(directory, train(str(recipe), overrides, directory, resume), "")


@pytest.fixture(scope="session")
def train_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Finished]:
    """Trains a recipe in this process, once for all tests that compare something with that run.

    Do not change its run directory.
    """
    runs: dict[str, Finished] = {}

    def train(recipe: Path) -> Finished:
        key = hashlib.sha256(recipe.read_bytes()).hexdigest()
        if key not in runs:
            runs[key] = _train_here(recipe, tmp_path_factory.mktemp("once") / "run")
        return runs[key]

    return train


@pytest.fixture
def launch(warm: WarmServer) -> Generator[Callable[..., WarmProcess]]:
    """Starts ranks through the real launcher and returns its process without waiting.

    `config` names a launch configuration, `fault` functions of support/programs/faults.py,
    separated by commas; `program` replaces `trainer`. `WarmServer.start` describes `cwd` and
    `variables`. Ranks that still run after the test are killed.
    """
    started: list[WarmProcess] = []

    def start(
        *arguments: str,
        config: str = "cpu-2",
        options: Sequence[str] = (),
        fault: str | None = None,
        program: Sequence[str] | None = None,
        cwd: Path | None = None,
        **variables: str,
    ) -> WarmProcess:
        if fault is not None:
            program, variables = [str(FAULTS)], {**variables, "FAULT": fault}
        command = launch_command(*arguments, config=config, options=options, program=program)
        place = {} if cwd is None else {"cwd": cwd}
        started.append(warm.start(*command[1:], variables=variables, **place))
        return started[-1]

    yield start
    for process in started:
        process.kill_all()


@pytest.fixture
def train_on_two_ranks(launch: Callable[..., WarmProcess]) -> Callable[..., Finished]:
    """Trains on two ranks through the launcher: (recipe file, run directory, overrides…)."""

    def train(
        recipe: Path,
        directory: Path,
        *overrides: str,
        resume: str = "auto",
        config: str = "cpu-2",
        options: Sequence[str] = (),
        program: Sequence[str] | None = None,
    ) -> Finished:
        settings = [part for override in overrides for part in ("--set", override)]
        arguments = ("train", str(recipe), "--run-dir", str(directory), "--resume", resume)
        process = launch(*arguments, *settings, config=config, options=options, program=program)
        output, _ = process.communicate(timeout=600)
        assert process.returncode is not None
        return Finished(directory, process.returncode, output)

    return train


@pytest.fixture(scope="session")
def uneven_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_uneven_rows(tmp_path_factory.mktemp("rows") / "rows.jsonl")
