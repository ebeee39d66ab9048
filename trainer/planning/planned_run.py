"""The run of a recipe, built with the micro-batch that its plan found."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from accelerate import Accelerator

from trainer.assembly.build import build_run
from trainer.assembly.memory_advice import recipe_memory
from trainer.planning.micro_batch import MicroBatch, micro_batch_of_run
from trainer.planning.target import gpu_of
from trainer.process.stop_request import StopRequest
from trainer.recipe.schema import Recipe
from trainer.run import Run
from trainer.tracking.progress import Progress

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    run: Run
    micro_batch: MicroBatch | None
    """How `auto` was resolved; None without a GPU, or if the recipe gives the size."""


def build_planned_run(
    recipe: Recipe,
    accelerator: Accelerator,
    directory: Path,
    stop: StopRequest | None = None,
    *,
    progress: Progress | None = None,
    other_rows: "Mapping[str, Dataset] | None" = None,
    keeps_tokenizer: bool = True,
    continues: Path | None = None,
) -> PlannedRun:
    """Returns what `build_run` does, after planning the micro-batch if it is `auto` on a GPU.

    `continues` is the checkpoint from which the run goes on, if it does. Collective: every rank
    calls it. Raises what `build_run` and `micro_batch_of_run` raise, and OutOfMemoryError.
    """
    with recipe_memory(recipe, "loading", "loading the model"):
        planned = micro_batch_of_run(
            recipe,
            accelerator,
            gpu_of(accelerator.device),
            directory if keeps_tokenizer else None,
            other_rows,
            continues=continues,
        )
        run = build_run(
            recipe,
            accelerator,
            directory,
            stop,
            progress=progress,
            other_rows=other_rows,
            keeps_tokenizer=keeps_tokenizer,
            inputs=None if planned is None else planned.inputs,
            micro_batch_size=None if planned is None else planned.chosen.size,
        )
    return PlannedRun(run=run, micro_batch=None if planned is None else planned.chosen)
