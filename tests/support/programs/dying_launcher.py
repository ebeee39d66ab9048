"""A launcher that dies as soon as its rank trains.

python dying_launcher.py RANK_PROGRAM FILE    the rank creates FILE.training when it trains
"""

import subprocess
import sys
import time
from pathlib import Path

subprocess.Popen([sys.executable, *sys.argv[1:]])
while not Path(f"{sys.argv[-1]}.training").exists():
    time.sleep(0.01)
