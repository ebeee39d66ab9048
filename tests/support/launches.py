"""Programs on two gloo ranks, through the project's launch configurations, and what they leave."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).parents[2]
SUPPORT = Path(__file__).parent
FSDP_ON_CPU = SUPPORT / "fsdp_on_cpu.py"
FAULTS = SUPPORT / "faults.py"
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
    """Returns the weights of a checkpoint, or with `optimizer` the moments, from all its files."""
    files = sorted(checkpoint.glob(f"{kind}-*.safetensors"))
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def largest_difference(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    return max(float((mine[name] - theirs[name]).abs().max()) for name in mine)


def launch_command(
    *arguments: str,
    config: str = "cpu-2",
    options: Sequence[str] = (),
    program: Sequence[str] | None = None,
) -> list[str]:
    """Returns the command that launches `trainer`, or a program, with a configuration."""
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *options]
    file = ROOT / "accelerate_configs" / f"{config}.yaml"
    if program is None:
        program = [str(FSDP_ON_CPU)] if config.startswith("fsdp2") else ["-m", "trainer"]
    return [*launcher, "--config_file", str(file), *program, *arguments]


def run_to_its_end(command: Sequence[str], directory: Path) -> Finished:
    """Runs a command that launches ranks, and leaves none of them behind."""
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


def launch_environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def rank_pids(launcher: int) -> list[int]:
    """Returns the processes of the ranks of a launcher that the system started, in order."""
    children = psutil.Process(launcher).children(recursive=True)
    ranks = [(child.environ().get("RANK"), child.pid) for child in children]
    return [pid for rank, pid in sorted((rank, pid) for rank, pid in ranks if rank is not None)]


def wait_until(true: Callable[[], Any], process: Any = None, seconds: float = 120) -> None:
    """Waits until something is true, while a process runs."""
    deadline = time.monotonic() + seconds
    while not true():
        assert process is None or process.poll() is None, process.communicate(timeout=10)[0]
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.01)


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
