"""A sweep over two seeds, in the folder `parent`, whose runs last until they are stopped.

python sweep_of_two_seeds.py RECIPE [LAUNCHER]
"""

import sys
from pathlib import Path

from trainer.cli.sweep import sweep

code = sweep(
    sys.argv[1],
    ("schedule.steps=100000", "evaluation.every=100000"),
    seeds="1,2",
    vary=(),
    directory=Path("parent"),
    launcher=" ".join(sys.argv[2:]) or None,
    print_only=False,
    smoke=False,
)
sys.exit(code)
