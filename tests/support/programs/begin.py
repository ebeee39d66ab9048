"""Creates a file, the moment from which tests measure time, and runs the command.

python begin.py FILE ARGUMENT…
"""

import runpy
import sys
from pathlib import Path

Path(sys.argv.pop(1)).touch()
sys.argv[0] = "trainer"
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
