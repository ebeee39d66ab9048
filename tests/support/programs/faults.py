"""The command with faults in it, for launched ranks.

FAULT names functions of this file, separated by commas; each changes this process before the
command starts. A fault that waits for a moment creates the file READY when that moment has come,
with the process id of the rank that the test signals or kills. To add a fault, write a function.

    FAULT=one_rank_fails RANK=… python faults.py train RECIPE
"""

import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RANK = os.environ["RANK"]


def ready(text: str | None = None) -> None:
    """Creates READY, once."""
    file = Path(os.environ["READY"])
    if not file.exists():
        staging = file.with_name(f"{file.name}.new")
        staging.write_text(text or str(os.getpid()))
        staging.rename(file)


def before(owner: Any, name: str, act: Callable[..., None]) -> None:
    """Makes `act` run before each call of a method or function, with the same arguments."""
    real = getattr(owner, name)

    def call(*arguments: Any, **options: Any) -> Any:
        act(*arguments, **options)
        return real(*arguments, **options)

    is_bound = hasattr(real, "__self__")
    setattr(owner, name, staticmethod(call) if is_bound else call)


def collate(act: Callable[[int], None]) -> None:
    """Makes `act` run before each batch is collated, with its epoch; 0 is an evaluation."""
    from trainer.tasks.classification.task import Classification

    before(Classification, "collate", lambda _self, _split, _ids, epoch: act(epoch))


def one_rank_fails() -> None:
    from trainer.errors import DataError

    def fail(epoch: int) -> None:
        if RANK == "1" and epoch == 1:
            raise DataError("a row cannot be read", hint="remove it")

    collate(fail)


def one_rank_waits() -> None:
    def wait(epoch: int) -> None:
        if RANK == "1" and epoch == 1:
            ready()
            time.sleep(600)

    collate(wait)


def the_other_computes() -> None:
    """Rank 0 computes for four seconds once rank 1 waits."""

    def compute(_epoch: int) -> None:
        if RANK == "0" and Path(os.environ["READY"]).exists():
            time.sleep(4)

    collate(compute)


def the_main_process_prepares() -> None:
    """The main process prepares for PREPARATION_SECONDS."""
    from trainer.tasks.classification.task import Classification

    def prepare(*_: Any) -> None:
        if RANK == "0":
            time.sleep(float(os.environ["PREPARATION_SECONDS"]))

    before(Classification, "build", prepare)


def preparation_is_slow() -> None:
    """The main process prepares for a minute; rank SLOW_RANK is ready when that begins."""
    from trainer.tasks.classification.task import Classification

    def prepare(*_: Any) -> None:
        if os.environ["SLOW_RANK"] == RANK:
            ready()
        time.sleep(60 if RANK == "0" else 0)

    before(Classification, "build", prepare)


def evaluation_is_slow() -> None:
    """Rank SLOW_RANK is ready at its first batch of an evaluation."""

    def slowly(epoch: int) -> None:
        if epoch == 0:
            if os.environ["SLOW_RANK"] == RANK:
                ready()
            time.sleep(0.1)

    collate(slowly)


def saving_is_slow() -> None:
    """Rank SLOW_RANK is ready at the first file that it saves."""
    from trainer.checkpoints import shards

    def slowly(*_: Any) -> None:
        if os.environ["SLOW_RANK"] == RANK:
            ready()
        time.sleep(1)

    before(shards, "_write", slowly)


def one_rank_is_elsewhere() -> None:
    """Rank 1 works in another folder and therefore has another run directory."""
    from trainer.process import run_directory

    run_directory.LAG_SECONDS = 1
    if RANK == "1":
        Path("elsewhere").mkdir(exist_ok=True)
        os.chdir("elsewhere")


def one_rank_may_write_little() -> None:
    if RANK == "1":
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def one_rank_is_slow() -> None:
    import torch

    from trainer.tasks.classification.task import Classification

    def slowly(*_: Any) -> None:
        if RANK == "1" and torch.is_grad_enabled():
            time.sleep(0.1)

    before(Classification, "loss_sums", slowly)


def all_logits_fail() -> None:
    """Fails where a loss would hold all logits at once."""
    from trainer.models import output_loss

    def fail(*_: Any) -> None:
        raise AssertionError("all logits at once")

    before(output_loss, "_of_all_logits", fail)


if __name__ == "__main__":
    for fault in os.environ["FAULT"].split(","):
        globals()[fault]()

    from trainer.__main__ import main

    main()
