"""A launcher and its rank, which outlives it: SIGTERM makes the rank save for a second.

python outliving_rank.py launch DIRECTORY    DIRECTORY is the rank's run directory
"""

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from trainer.process.run_directory import claim
from trainer.process.status import Status


def rank(directory: Path) -> None:
    asked: list[str] = []

    def ask(*_: Any) -> None:
        asked.append("once")

    signal.signal(signal.SIGTERM, ask)
    with claim(directory):
        Status(directory).write("running", None, 0, "")
        while not asked:
            time.sleep(0.02)
        time.sleep(1)
        Status(directory).write("stopped", 85, 7, " and ".join(asked))


if sys.argv[1] == "launch":
    subprocess.run([sys.executable, __file__, "rank", sys.argv[2]])
else:
    rank(Path(sys.argv[2]))
