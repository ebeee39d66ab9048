"""Stage 7: how long a checkpoint blocks training, written in the foreground or background.

A Llama of 110 million parameters in bf16, trained in full and with adapters;
tests/benchmarks/saving.py says what is measured. Files go to the disk of the temporary folder.
"""

import shutil
from typing import Any

from accelerate.state import AcceleratorState
from saving import CASES, measure, recipe_of
from stage import Stage

SHAPE = {
    "hidden_size": 768,
    "num_hidden_layers": 15,
    "num_attention_heads": 12,
    "num_key_value_heads": 12,
    "intermediate_size": 2048,
}
TINY = {**SHAPE, "hidden_size": 48, "num_hidden_layers": 1, "intermediate_size": 96}
EVERY, NUM_STEPS = 120, 250
"""Checkpoints are so far apart that each is written before the next one begins."""


def main() -> None:
    stage = Stage.from_arguments()
    for name, (mode, background) in CASES.items():
        with stage.guarded(name):
            AcceleratorState._reset_state(reset_partial_state=True)
            values = recipe_of(mode, background)
            values["model"]["architecture"] |= TINY if stage.tiny else SHAPE
            values["precision"] = "bf16"
            if not stage.tiny:
                values["schedule"]["steps"] = NUM_STEPS
                values["checkpoint"]["every_steps"] = EVERY
            folder = stage.work / "stall"
            folder.mkdir()
            try:
                found: dict[str, Any] = measure(values, folder)
            finally:
                shutil.rmtree(folder)
            stage.figure(name, found)
            headline = {name: {"seconds_blocked": found["blocked"], "stall": found["stall"]}}
            stage.figure("headline", stage.figures.get("headline", {}) | headline)
            stage.check(name, found["checkpoint_bytes"] > 0)


if __name__ == "__main__":
    main()
