"""A SLURM cluster of two nodes on this host, to which tests submit the project's templates."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import psutil
import pytest
from support.paths import ROOT

SCRIPT = Path(__file__).parent / "cluster.sh"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY")


@dataclass(frozen=True)
class Cluster:
    """SLURM's commands, and waiting for jobs with a time limit."""

    environment: dict[str, str]
    logs: Path

    def submit(self, *command: str, **variables: str) -> str:
        """Submits a job and returns its number."""
        output = self.logs / "%A_%a.out" if "--array" in " ".join(command) else self.logs / "%j.out"
        return self.call("sbatch", "--parsable", f"--output={output}", *command, **variables)

    def call(self, *command: str, **variables: str) -> str:
        environment = {**self.environment, **variables}
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def show(self, job: str) -> dict[str, str]:
        """Returns what scontrol shows of a job, such as JobState, ExitCode and Restarts."""
        words = self.call("scontrol", "--oneliner", "show", "job", job).split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def log(self, job: str) -> str:
        """Returns the output of a job's batch script, over all of its starts."""
        return (self.logs / f"{job}.out").read_text()

    def processes(self, job: str) -> list[psutil.Process]:
        """Returns the live processes of a job, on both nodes."""
        found: list[psutil.Process] = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("SLURM_JOB_ID") == job:
                    found.append(process)
            except psutil.Error:  # it has ended, or belongs to the kernel
                continue
        return [process for process in found if process.status() != psutil.STATUS_ZOMBIE]

    def wait_for_end(self, job: str, seconds: float = 180) -> dict[str, str]:
        """Waits until a job has ended for good and returns what scontrol shows of it."""
        self.wait_until(lambda: self.show(job)["JobState"] in ENDED, job, seconds)
        return self.show(job)

    def wait_until(self, true: Callable[[], bool], job: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, self._describe(job)
            time.sleep(0.1)

    def _describe(self, job: str) -> str:
        log = self.logs / f"{job}.out"
        return f"{self.show(job)}\n{log.read_text() if log.is_file() else 'no output'}"


def missing() -> str | None:
    """Returns why this machine cannot run a cluster, or None."""
    search = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    absent = [name for name in PROGRAMS if shutil.which(name, path=search) is None]
    if absent:
        return f"{', '.join(absent)} not installed (Debian: slurm-wlm, munge)"
    return "a SLURM cluster needs root" if os.geteuid() != 0 else None


@pytest.fixture(scope="session")
def cluster(own_caches: Path) -> Generator[Cluster]:
    """A running cluster, the only one of this machine: its jobs are told by their numbers."""
    if reason := missing():
        pytest.skip(reason)
    with filelock.FileLock(Path(tempfile.gettempdir()) / "trainer-tests-slurm.lock"):
        yield from start_cluster(own_caches)


def start_cluster(own_caches: Path) -> Generator[Cluster]:
    # If the tests run in a SLURM job, theirs are not steps of it.
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # socket paths must be short
    logs = own_caches / "slurm"
    logs.mkdir()
    started = run_script("up", folder)
    try:
        assert started.returncode == 0, started.stderr
        lines = [line.removeprefix("export ") for line in started.stdout.splitlines()]
        environment = {
            **outside,
            **dict(line.split("=", 1) for line in lines),
            "PYTHONPATH": str(ROOT),
            "TRAINER_VENV": sys.prefix,
            "SLURM_TMPDIR": str(own_caches),
        }
        yield Cluster(environment, logs)
    finally:
        stopped = run_script("down", folder) if started.returncode == 0 else started
        shutil.rmtree(folder, ignore_errors=True)
    assert stopped.returncode == 0, stopped.stderr


def run_script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command: Sequence[str | Path] = (SCRIPT, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=180)
