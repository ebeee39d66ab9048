"""Holds a run directory as a run does, until standard input ends.

python claiming.py DIRECTORY
"""

import sys
from pathlib import Path

from trainer.process.run_directory import claim

with claim(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
