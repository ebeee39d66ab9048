"""Runs on two gloo ranks, launched with the project's configurations, and what they leave."""

import contextlib
import json
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file
from support.paths import PROGRAMS, ROOT
from torch import Tensor

FSDP_ON_CPU = PROGRAMS / "fsdp_on_cpu.py"
FAULTS = PROGRAMS / "faults.py"
WORDS = "good bad fine awful the a film plot was not very quite dull bright slow".split()


@dataclass(frozen=True)
class Finished:
    """What a command left behind."""

    directory: Path
    code: int
    output: str

    def lines(self, split: str = "train") -> list[dict[str, Any]]:
        texts = (self.directory / "metrics.jsonl").read_text().splitlines()
        return [record for record in map(json.loads, texts) if record["split"] == split]

    def weights(self, step: int) -> dict[str, Tensor]:
        return tensors_of(self.directory / "checkpoints" / f"step-{step:08d}")

    def status(self) -> dict[str, Any]:
        return json.loads((self.directory / "status.json").read_text())

    def results(self) -> dict[str, Any]:
        return json.loads((self.directory / "results.json").read_text())


def tensors_of(checkpoint: Path, kind: str = "model") -> dict[str, Tensor]:
    """Returns the weights of a checkpoint, or its moments if `kind` is `optimizer`."""
    files = sorted(checkpoint.glob(f"{kind}-*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def largest_difference(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def assert_same_metrics(one: Finished, other: Finished) -> None:
    """Compares the final metrics of every split, but for the seconds that they took."""
    mine, theirs = (run.results()["final"]["metrics"] for run in (one, other))
    assert mine.keys() == theirs.keys()
    for split, metrics in mine.items():
        assert metrics.keys() == theirs[split].keys()
        for name in metrics.keys() - {"seconds"}:
            value, expected = theirs[split][name], metrics[name]
            if isinstance(expected, float):
                close = math.isclose(value, expected, rel_tol=1e-5, abs_tol=1e-12)
            else:
                close = value == expected
            assert close, (split, name, value, expected)


def launch_command(
    *arguments: str,
    config: str = "cpu-2",
    options: Sequence[str] = (),
    program: Sequence[str] | None = None,
) -> list[str]:
    """Returns the command that launches `trainer`, or `program`, with a launch configuration."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *options]
    file = ROOT / "accelerate_configs" / f"{config}.yaml"
    if program is None:
        program = [str(FSDP_ON_CPU)] if config.startswith("fsdp2") else ["-m", "trainer"]
    return [*launcher, "--config_file", str(file), *program, *arguments]


def run_to_its_end(command: Sequence[str], directory: Path) -> Finished:
    """Runs a command that launches ranks to its end, and kills ranks that are left."""
    with subprocess.Popen(
        command,
        cwd=ROOT,  # Accelerate's configurations name those of DeepSpeed relative to it
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


def launch_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def rank_pids(launcher: int) -> list[int]:
    """Returns the process ids of the ranks that a launcher started itself, in order of rank."""
    children = psutil.Process(launcher).children(recursive=True)
    ranks = [(child.environ().get("RANK"), child.pid) for child in children]
    return [pid for rank, pid in sorted((rank, pid) for rank, pid in ranks if rank is not None)]


def wait_until(true: Callable[[], Any], process: Any = None, seconds: float = 120) -> None:
    """Waits until `true()` holds, and fails if `process` ends before or `seconds` pass."""
    deadline = time.monotonic() + seconds
    while not true():
        assert process is None or process.poll() is None, process.communicate(timeout=10)[0]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)


def free_port() -> int:
    """Returns a TCP port of this host that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def write_uneven_rows(file: Path) -> Path:
    """Writes 160 labelled rows of 3 to 40 words, and returns the file."""
    generator = random.Random(0)
    rows = [
        {
            "text": " ".join(generator.choices(WORDS, k=generator.randint(3, 40))),
            "label": generator.choice(["no", "yes"]),
        }
        for _ in range(160)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file
