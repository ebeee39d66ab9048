"""Two cells of a notebook: a run in this process, then one on two forked ranks.

Arguments: a recipe, the folder of the run directories, and a free port.
"""

import os
import sys
from typing import Any

from accelerate import notebook_launcher

import trainer

SETTINGS = {"schedule": {"steps": 4}, "evaluation": {"every": 2}, "tracking.trackers": []}


def cell(recipe: str, settings: dict[str, Any], directory: str) -> trainer.Result:
    result = trainer.train(recipe, settings, run_dir=directory, progress=None)
    place = f"rank {os.environ['RANK']} of {os.environ['WORLD_SIZE']}"
    print(f"{place}: {result.state} {result.metrics['test']['loss']!r}", flush=True)
    return result


if __name__ == "__main__":
    recipe, folder, port = sys.argv[1:]
    trainer.train(recipe, SETTINGS, run_dir=f"{folder}/alone", progress=None)
    ranks = (recipe, SETTINGS, f"{folder}/two")
    notebook_launcher(cell, ranks, num_processes=2, use_port=port)
