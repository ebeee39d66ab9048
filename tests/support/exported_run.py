"""The export of an untrained run, and what a fresh process says of a folder in its place."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from trainer.assembly.build import build_run
from trainer.exports import fresh_process
from trainer.exports.gate import job_of
from trainer.exports.measured import Measured, measure
from trainer.models.export import export_model
from trainer.run import Run
from trainer.tasks.recipe import Recipe


@dataclass(frozen=True)
class Exported:
    run: Run
    measured: Measured
    folder: Path

    def findings(self, folder: Path) -> Mapping[str, Any]:
        """Returns what a fresh process finds in a folder; it works in this one, to save time."""
        job, inputs = job_of(self.run, self.measured, folder, None)
        findings: dict[str, Any] = {"problems": [], "adapter_problems": [], "usage": None}
        fresh_process.answer(job, inputs, findings)
        return findings


def export_untrained(recipe: Recipe, accelerator: Accelerator, root: Path) -> Exported:
    """Builds a run in root/run, and exports its model to root/model."""
    run = build_run(recipe, accelerator, root / "run")
    folder, ends = root / "model", run.task.generation_ends(run.model)
    export_model(run.model, run.tokenizer, folder, ends=ends)
    return Exported(run, measure(run, accelerator), folder)
