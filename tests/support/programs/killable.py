"""The command, which records the examples of each step and kills itself where KILL says so.

KILL is POINT:NUMBER:RANK; rename:2:0 is before the second rename in rank 0. ATTEMPT counts the
commands of a chain, and RECORDS is the folder for the records.
"""

import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.checkpoints import shards
from trainer.cli import app
from trainer.data import encoded
from trainer.order import DataOrder

RANK = os.environ.get("RANK", "0")
RECORDS = Path(os.environ["RECORDS"])
POINT, NUMBER, KILLED_RANK = os.environ.get("KILL", "never:0:0").split(":")
calls: dict[str, int] = {}


def die() -> None:
    (RECORDS / f"died-{os.environ['ATTEMPT']}").touch()
    os.kill(os.getpid(), signal.SIGKILL)


def killing(point: str, real: Callable[..., Any], *, after: bool = False) -> Callable[..., Any]:
    """Returns `real`, but its call number NUMBER kills this process."""

    def call(*arguments: Any, **options: Any) -> Any:
        calls[point] = calls.get(point, 0) + 1
        now = (point, str(calls[point]), RANK) == (POINT, NUMBER, KILLED_RANK)
        if now and not after:
            die()
        result = real(*arguments, **options)
        if now:
            die()
        return result

    return call


def half_written(tensors: Any, file: Path, **options: Any) -> None:
    really_save(tensors, file, **options)
    calls["half"] = calls.get("half", 0) + 1
    if ("half", str(calls["half"]), RANK) == (POINT, NUMBER, KILLED_RANK):
        os.truncate(file, file.stat().st_size // 2)
        die()


def recorded(self: DataOrder, step: int, **place: int) -> Any:
    """Returns the micro-batches of a step after recording their examples."""
    batches = list(really_cut(self, step, **place))
    line = {
        "attempt": int(os.environ["ATTEMPT"]),
        "step": step,
        "ids": [int(example) for ids in batches for example in ids],
    }
    with (RECORDS / f"rank-{RANK}.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    time.sleep(0.02)  # so that a random moment falls into a step as often as into a save
    return batches


really_save, really_cut = shards.save_file, DataOrder.micro_batches
shards.save_file = half_written
DataOrder.micro_batches = recorded
Path.rename = killing("rename", killing("renamed", Path.rename, after=True))
Path.replace = killing("replace", Path.replace)
Path.unlink = killing("unlink", Path.unlink)
shutil.rmtree = killing("rmtree", shutil.rmtree)
shards.flush = killing("flush", shards.flush)
encoded._write = killing("prepare", encoded._write)
(RECORDS / f"started-{os.environ['ATTEMPT']}-{RANK}").touch()
app.main()
