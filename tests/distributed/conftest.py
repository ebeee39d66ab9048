"""Runs of the real command: in this process, or on two gloo ranks through `accelerate launch`."""

import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from distributed_runs import ROOT, Finished, launch_command, launch_environment

WORDS = "good bad fine awful the a film plot was not very quite dull bright slow".split()


@pytest.fixture
def train_here() -> Callable[..., Finished]:
    """Trains in this process: (recipe file, run directory, overrides…) -> Finished."""

    def train(recipe: Path, directory: Path, *overrides: str, resume: str = "auto") -> Finished:
        from trainer.commands import train

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
        with subprocess.Popen(
            command,
            cwd=ROOT,  # where configurations of Accelerate find those of DeepSpeed
            env=launch_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=600)
            finally:
                with contextlib.suppress(ProcessLookupError):  # ranks outlive their launcher
                    os.killpg(process.pid, signal.SIGKILL)
        return Finished(directory, process.returncode, output)

    return train


@pytest.fixture
def uneven_rows(tmp_path: Path) -> Path:
    """160 rows of 3 to 40 words."""
    generator = random.Random(0)
    rows = [
        {
            "text": " ".join(generator.choices(WORDS, k=generator.randint(3, 40))),
            "label": generator.choice(["no", "yes"]),
        }
        for _ in range(160)
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
