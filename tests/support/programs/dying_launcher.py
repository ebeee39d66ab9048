"""A launcher that dies while its rank trains.

python dying_launcher.py PROGRAM ARGUMENT…
"""

import subprocess
import sys
import time

subprocess.Popen([sys.executable, *sys.argv[1:]])
time.sleep(3)  # while the rank imports
