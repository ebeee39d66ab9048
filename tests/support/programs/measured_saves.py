"""The command with checkpoint files of 8 MB, which measures the memory that a save needs.

MEASURED is a folder: rank-N.json gets the bytes by which the memory of the process grew at most
during a save and while it loaded a checkpoint.
"""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.assembly import resume
from trainer.checkpoints import shards
from trainer.checkpoints.save import Saver
from trainer.cli import app

shards.SHARD_BYTES = 8 * 2**20
grown: dict[str, int] = {}


def memory(name: str) -> int:
    """Returns VmRSS (memory now) or VmHWM (the most since the last reset), in bytes."""
    text = Path("/proc/self/status").read_text()
    found = re.search(rf"{name}:\s+(\d+) kB", text)
    assert found is not None
    return 1024 * int(found[1])


def measured(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM
        before = memory("VmRSS")
        result = real(*arguments, **options)
        grown.setdefault(name, 0)  # the first save also fills the caches of libraries
        calls[name] = calls.get(name, 0) + 1
        if calls[name] > 1 or name == "load":
            grown[name] = max(grown[name], memory("VmHWM") - before)
        file = Path(os.environ["MEASURED"]) / f"rank-{os.environ['RANK']}.json"
        file.write_text(json.dumps(grown))
        return result

    return call


calls: dict[str, int] = {}
Saver.save = measured("save", Saver.save)
resume.load_checkpoint = measured("load", resume.load_checkpoint)
app.main()
