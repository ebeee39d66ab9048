"""CPU cores that this process may use, and the threads of torch that fit on them.

More threads than cores wait for each other: on two shared cores, eight threads can be eight times
slower than two. The C library knows which cores a process may use, but neither the quota of its
control group, as containers set it, nor the ranks that share the cores.
"""

import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainer.distributed.environment_variables import is_local_main, whole_number
from trainer.process.control_groups import control_groups

LOG = logging.getLogger("trainer")
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables from which torch takes its number of threads."""


@dataclass(frozen=True)
class CoreLimit:
    """A limit on the cores of this process."""

    cores: int
    num_ranks: int
    """Ranks of this machine that share the cores."""
    origin: str
    """What sets the limit, such as "CPU affinity"."""

    @property
    def num_threads(self) -> int:
        """Threads of each rank that fit on the cores; at least 1."""
        return max(1, self.cores // self.num_ranks)

    def __str__(self) -> str:
        cores = f"{self.cores} core{'s' * (self.cores != 1)} ({self.origin})"
        return cores + (f", shared by {self.num_ranks} ranks" if self.num_ranks > 1 else "")


def core_limit(root: Path = Path("/"), variables: Mapping[str, str] = os.environ) -> CoreLimit:
    """Returns the limit that allows this process the fewest threads.

    `root` is the folder of /proc and /sys. Raises LaunchError for an invalid LOCAL_WORLD_SIZE.
    """
    return min(_limits(root, variables), key=lambda limit: limit.num_threads)


def chosen_threads(variables: Mapping[str, str] = os.environ) -> int | None:
    """Returns the number of threads that the environment chooses for torch; None if it does not."""
    for name in VARIABLES:
        number = re.match(r"\s*([1-9][0-9]{0,5})\b", variables.get(name, ""))
        if number is not None:  # OMP_NUM_THREADS may hold a number for each level of nesting
            return int(number[1])
    return None


def fit_threads(limit: CoreLimit, chosen: int | None) -> None:
    """Lowers torch's number of threads to what the limit allows, with a warning in the log.

    A number that the environment has `chosen` stays, with a warning if it is larger. Nothing
    happens if the threads fit.
    """
    import torch

    number = torch.get_num_threads() if chosen is None else chosen
    if number <= limit.num_threads:
        return
    if chosen is None:
        torch.set_num_threads(limit.num_threads)
        fitting = f"{limit.num_threads} thread{'s' * (limit.num_threads > 1)}"
        each = " each" * (limit.num_ranks > 1)
        message = f"torch uses {fitting}{each} instead of {number}: {limit}"
    else:
        message = f"{too_many(limit, number)}; set OMP_NUM_THREADS={limit.num_threads}"
    if is_local_main():
        LOG.warning("%s", message)


def too_many(limit: CoreLimit, num_threads: int) -> str:
    """Returns, as a sentence without its full stop, that threads do not fit on the cores."""
    each = " in each rank" * (limit.num_ranks > 1)
    return f"{num_threads} threads{each} slow each other down on {limit}"


def _limits(root: Path, variables: Mapping[str, str]) -> Iterator[CoreLimit]:
    num_ranks = whole_number("LOCAL_WORLD_SIZE", 1)
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    of_node = _number(variables, "SLURM_CPUS_ON_NODE")
    own = _is_task_of_slurm(variables)  # then its cores may be bound to it
    shared = num_ranks if not own or of_node is None or cores >= of_node else 1
    yield CoreLimit(cores, shared, "CPU affinity")
    for quota in _quotas(root):
        yield CoreLimit(max(1, math.ceil(quota)), num_ranks, "CPU quota of the control group")
    of_task = _number(variables, "SLURM_CPUS_PER_TASK")
    if of_task is not None and "SLURM_STEP_ID" in variables:
        yield CoreLimit(of_task, 1 if own else num_ranks, "SLURM_CPUS_PER_TASK")
    elif of_node is not None:
        yield CoreLimit(of_node, num_ranks, "SLURM_CPUS_ON_NODE")


def _is_task_of_slurm(variables: Mapping[str, str]) -> bool:
    """Returns whether srun started this rank itself, rather than a launcher that starts ranks."""
    tasks = variables.get("SLURM_STEP_NUM_TASKS") or variables.get("SLURM_NTASKS")
    place = variables.get("SLURM_PROCID")
    started = "SLURM_STEP_ID" in variables and tasks is not None and place is not None
    return started and (tasks, place) == (variables.get("WORLD_SIZE"), variables.get("RANK"))


def _number(variables: Mapping[str, str], name: str) -> int | None:
    text = variables.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else None


def _quotas(root: Path) -> Iterator[float]:
    """Yields the quota, in cores, of each control group that holds this process and has one."""
    for folder in control_groups(root, "cpu"):
        quota = _quota(folder)
        if quota is not None:
            yield quota


def _quota(folder: Path) -> float | None:
    """Returns the quota of one control group, of the second version or the first."""
    try:
        if (folder / "cpu.max").exists():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        return int(quota) / int(period) if quota.isdecimal() and int(period) > 0 else None
    except (OSError, ValueError):
        return None
