"""How long ranks wait for each other: to meet, while the main process works alone, in a step.

The only file that uses private names of torch.distributed: `distributed_c10d._world.pg_map`, which
lists all process groups, and `distributed_c10d._set_pg_timeout`, for torch before 2.14.

Two environment variables set these times, in seconds: TRAINER_MEETING_SECONDS for the meeting,
TRAINER_STEP_TIMEOUT_SECONDS for training.
"""

from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

from torch import distributed as dist
from torch.distributed import distributed_c10d

from trainer.distributed.environment_variables import seconds

MEETING = timedelta(minutes=10)
"""From the arrival of the first rank to that of the last."""
PREPARATION = timedelta(hours=4)
"""Before the first step and after the last, when the main process tokenizes or exports alone."""
TRAINING = timedelta(minutes=30)
"""In steps, evaluations and checkpoints, in which all ranks have equally much to do."""


def meeting_time() -> timedelta:
    """Returns how long ranks wait for the last one; raises LaunchError for an invalid duration."""
    return _from_environment("TRAINER_MEETING_SECONDS", MEETING)


def step_time() -> timedelta:
    """Returns how long a rank waits for another while training, and to connect to it.

    Raises LaunchError if the value is not a positive duration.
    """
    return _from_environment("TRAINER_STEP_TIMEOUT_SECONDS", TRAINING)


@contextmanager
def training_time() -> Generator[None]:
    """Context manager: ranks wait as long as training allows, and longer after it."""
    wait_at_most(step_time())
    yield
    wait_at_most(PREPARATION)


def wait_at_most(time: timedelta) -> None:
    """Sets how long this rank waits in a collective from now on, in every group made so far.

    Engines make groups of their own, with torch's defaults. On CPUs (gloo) the collective then
    raises. On GPUs (NCCL) torch's watchdog ends the process, after lines of its own.
    """
    if not dist.is_initialized():
        return
    set_timeout = getattr(dist, "set_timeout", None) or distributed_c10d._set_pg_timeout  # pyright: ignore[reportPrivateUsage]
    for group in list(distributed_c10d._world.pg_map):  # pyright: ignore[reportPrivateUsage]
        set_timeout(time, group)


def _from_environment(name: str, default: timedelta) -> timedelta:
    number = seconds(name)
    return default if number is None else timedelta(seconds=number)
