"""Runs of the real command: in this process, or on two gloo ranks through `accelerate launch`."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from distributed_runs import Finished, launch_command, run_to_its_end, write_uneven_rows


@pytest.fixture
def train_here() -> Callable[..., Finished]:
    """Trains in this process: (recipe file, run directory, overrides…) -> Finished."""

    def train(recipe: Path, directory: Path, *overrides: str, resume: str = "auto") -> Finished:
        from trainer.cli.train import train

        return Finished(directory, train(str(recipe), overrides, directory, resume), "")

    return train


@pytest.fixture
def train_on_two_ranks() -> Callable[..., Finished]:
    """Trains on two ranks through the launcher: (recipe file, run directory, overrides…)."""

    def train(
        recipe: Path,
        directory: Path,
        *overrides: str,
        resume: str = "auto",
        config: str = "cpu-2",
        options: Sequence[str] = (),
    ) -> Finished:
        settings = [part for override in overrides for part in ("--set", override)]
        command = launch_command(
            *("train", str(recipe), "--run-dir", str(directory), "--resume", resume, *settings),
            config=config,
            options=options,
        )
        return run_to_its_end(command, directory)

    return train


@pytest.fixture
def uneven_rows(tmp_path: Path) -> Path:
    return write_uneven_rows(tmp_path / "rows.jsonl")
