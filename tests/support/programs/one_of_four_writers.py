"""Writes a kept folder at the same moment as three other processes.

python one_of_four_writers.py FOLDER NOTES    NOTES gets a file for each that is ready or writes
"""

import os
import sys
import time
from pathlib import Path

from trainer.files.kept_folder import write_once

folder, notes = map(Path, sys.argv[1:])


def write(staging: Path) -> None:
    (notes / f"writer-{os.getpid()}").touch()
    (staging / "first").touch()
    time.sleep(0.3)
    (staging / "second").touch()


(notes / f"ready-{os.getpid()}").touch()
while len(list(notes.glob("ready-*"))) < 4:
    time.sleep(0.01)
write_once(folder, write)
assert sorted(path.name for path in folder.iterdir()) == ["first", "manifest.json", "second"]
