"""Chooses the micro-batch of a recipe on ranks whose GPUs have different memory left.

Arguments: a recipe as JSON, and the bytes of each rank, in order. Rank N writes FILE.rank-N.json.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.planning.gpus import GPUS
from trainer.planning.micro_batch import micro_batch_of_run
from trainer.tasks.recipe import parse_recipe

if __name__ == "__main__":
    file, *memories = sys.argv[1:]
    recipe = parse_recipe(json.loads(Path(file).read_text()), "the recipe")
    directory = Path(file).parent
    with launched(recipe, directory) as accelerator:
        rank = accelerator.process_index
        gpu = replace(GPUS["t4"], memory=int(memories[rank]))
        planned = micro_batch_of_run(recipe, accelerator, gpu, None)
        assert planned is not None
        chosen = planned.chosen
        run = build_run(
            recipe,
            accelerator,
            directory,
            inputs=planned.inputs,
            micro_batch_size=chosen.size,
        )
        found = {"size": chosen.size, "reason": chosen.reason, "of_run": run.micro_batch_size}
        if accelerator.deepspeed_plugin is not None:
            settings = accelerator.deepspeed_plugin.deepspeed_config
            found["of_engine"] = settings["train_micro_batch_size_per_gpu"]
        Path(f"{file}.rank-{rank}.json").write_text(json.dumps(found))
