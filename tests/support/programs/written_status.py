"""Writes the status of a run and ends.

python written_status.py DIRECTORY STATE STATUS_CODE CODE    CODE may be `killed`; a STATE of `none`
writes nothing, a STATUS_CODE of `none` is no code
"""

import os
import signal
import sys
from pathlib import Path

from trainer.process.status import Status

directory, state, status_code, code = sys.argv[1:]
if state != "none":
    written = None if status_code == "none" else int(status_code)
    Status(Path(directory)).write(state, written, 3, "starting")
if code == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(code))
