"""SLURM: what the job of this process was given."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping

from trainer.doctor.finding import Finding
from trainer.wording import excerpt, format_seconds

SHORT = 600
"""Seconds left in which little more than the start of a run fits."""
GIVEN = {
    "nodes": ("SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
    "tasks": ("SLURM_NTASKS", "SLURM_NPROCS"),
    "CPUs of a task": ("SLURM_CPUS_PER_TASK",),
    "CPUs of this node": ("SLURM_CPUS_ON_NODE",),
    "GPUs of this node": ("SLURM_GPUS_ON_NODE",),
    "MB of memory of a node": ("SLURM_MEM_PER_NODE",),
    "MB of memory of a CPU": ("SLURM_MEM_PER_CPU",),
    "MB of memory of a GPU": ("SLURM_MEM_PER_GPU",),
}
"""What a job was given, and the variables that say so."""


def about_slurm(variables: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yields what the job was given and the time that is left; nothing outside of a job."""
    job = variables.get("SLURM_JOB_ID")
    if job is None:
        return
    given = {
        what: excerpt(variables[name], 20)
        for what, names in GIVEN.items()
        for name in reversed(names)  # the first that is set wins
        if variables.get(name)
    }
    parts = ", ".join(f"{what} {number}" for what, number in given.items())
    what = f"was given: {parts}" if parts else "does not say what it was given"
    yield Finding("slurm", "fine", f"job {excerpt(job, 30)} {what}", None, given)
    if "SLURM_CPUS_PER_TASK" not in variables:
        yield Finding(
            "slurm-cpus",
            "warning",
            "the job did not ask for CPUs of a task, so a task may have one",
            "submit with --cpus-per-task",
        )
    yield from _time_left(job, variables)


def about_gpus_of_job(
    num_gpus: int, variables: Mapping[str, str] = os.environ
) -> Iterator[Finding]:
    """Yields whether torch sees the GPUs that the job was given."""
    given = variables.get("SLURM_GPUS_ON_NODE", "")
    if "SLURM_JOB_ID" not in variables or not given.isdecimal() or int(given) == num_gpus:
        return
    yield Finding(
        "slurm-gpus",
        "warning",
        f"the job has {int(given)} GPUs on this node, and torch sees {num_gpus}",
        "check --gpus-per-task and CUDA_VISIBLE_DEVICES",
        {"given": int(given), "visible": num_gpus},
    )


def _time_left(job: str, variables: Mapping[str, str]) -> Iterator[Finding]:
    end = variables.get("SLURM_JOB_END_TIME", "")
    seconds = int(end) - time.time() if end.isdecimal() else _asked(job)
    if seconds is None:
        yield Finding("slurm-time", "note", "SLURM does not say how much time the job has left")
        return
    left = max(0, int(seconds))
    figures = {"seconds": left}
    message = f"the job ends in {format_seconds(left)}"
    if seconds < SHORT:
        yield Finding("slurm-time", "warning", message, "submit with a longer --time", figures)
    else:
        yield Finding("slurm-time", "fine", message, None, figures)


def _asked(job: str) -> float | None:
    """Returns the seconds that squeue says are left; None if it does not say."""
    if shutil.which("squeue") is None or not re.fullmatch(r"[\w.+]{1,40}", job):
        return None
    try:
        done = subprocess.run(
            ["squeue", "--noheader", "--job", job, "--format", "%L"],
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return seconds_left(done.stdout.strip())


def seconds_left(text: str) -> float | None:
    """Returns the seconds of a time as squeue writes it, [D-][HH:]MM:SS; None for other text."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", text)
    if match is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
