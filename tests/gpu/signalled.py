"""Runs the command line and sends it SIGTERM once, after its second step.

The file that MARK names gets the backend of its process group.
"""

import os
import signal
import time
from pathlib import Path
from typing import Any

from torch import distributed

from trainer.__main__ import main
from trainer.tracking.tracker import Tracker

mark, progress = Path(os.environ["MARK"]), Tracker.progress


def progress_until_the_second(self: Tracker, step: int, record: Any) -> None:
    progress(self, step, record)
    if step == 2 and not mark.exists():
        mark.write_text(distributed.get_backend())
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.5)  # until a thread has handled it


Tracker.progress = progress_until_the_second  # type: ignore[method-assign]
main()
