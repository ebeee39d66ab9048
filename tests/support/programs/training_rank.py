"""A rank that trains until it is asked to stop, for 5 seconds at most, and writes the reason.

python training_rank.py FILE    FILE.training is created when it begins
"""

import sys
import time
from pathlib import Path

from trainer.process.stop_request import StopRequest, listen

stop = StopRequest()
with listen(stop, lambda: None), stop.at_boundaries():
    Path(f"{sys.argv[1]}.training").touch()
    end = time.monotonic() + 5
    while time.monotonic() < end and not stop.requested:
        time.sleep(0.05)
    Path(sys.argv[1]).write_text(str(stop.reason))
