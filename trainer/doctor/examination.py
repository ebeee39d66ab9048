"""The examination of a machine and a recipe: subject by subject, none of which can end it."""

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from trainer.doctor.communication import about_communication
from trainer.doctor.extensions import about_extensions
from trainer.doctor.finding import Finding, guarded
from trainer.doctor.gpus import about_gpus
from trainer.doctor.hub import about_hub
from trainer.doctor.launch import about_launch
from trainer.doctor.needs import UNREADABLE, about_needs
from trainer.doctor.planned import about_plan
from trainer.doctor.slurm import about_slurm
from trainer.doctor.storage import about_storage
from trainer.doctor.threads import about_threads
from trainer.doctor.versions import about_versions
from trainer.process.switches import restored_environment
from trainer.recipe.schema import Recipe
from trainer.wording import visible

MACHINE: dict[str, Callable[[], Iterable[Finding]]] = {
    "versions": about_versions,
    "GPUs": about_gpus,
    "DeepSpeed": about_extensions,
    "communication": about_communication,
    "CPU threads": about_threads,
    "SLURM": about_slurm,
    "folders": about_storage,
    "hub": about_hub,
}
WORDS = {"fine": "ok", "note": "note", "warning": "warning", "failure": "FAILS"}


@dataclass(frozen=True)
class Examined:
    """What was found about one subject."""

    subject: str
    findings: tuple[Finding, ...]

    def as_text(self) -> str:
        """Returns a heading and a line for each finding, safe to show on a terminal."""
        lines = [self.subject]
        for finding in self.findings:
            advice = f"; {finding.advice}" if finding.advice else ""
            text = visible(" ".join(f"{finding.message}{advice}".split()))
            lines.append(f"  {WORDS[finding.level]:<8} {text}")
        return "\n".join(lines)


def examine(recipe: Recipe | None = None, name: str = "") -> Iterator[Examined]:
    """Yields what was found about each subject: first the machine, then a recipe if one is given.

    `name` is what names the recipe on a command line, with overrides. Without a recipe nothing is
    written; with one, the prepared data are kept in the cache. The network is not used. Raises
    nothing: a subject that cannot be examined is a finding.
    """
    with restored_environment():
        _choose_accelerator()
        for subject, about in MACHINE.items():
            findings = tuple(guarded(about))
            if findings:
                yield Examined(subject, findings)
        if recipe is None:
            return
        needs = tuple(guarded(lambda: about_needs(recipe, name)))
        yield Examined("what the recipe needs", needs)
        readable = not any(finding.code in UNREADABLE for finding in needs)
        yield Examined("data", tuple(guarded(lambda: _about_data(recipe, readable=readable))))
        # What follows depends on the lengths of examples, known once the data are prepared.
        yield Examined("launch", tuple(guarded(lambda: about_launch(recipe))))
        yield Examined("plan", tuple(guarded(lambda: about_plan(recipe))))


def as_dict(examined: Iterable[Examined]) -> dict[str, Any]:
    """Returns the findings, each with its `subject`, and whether a run will fail."""
    subjects = list(examined)
    return {
        "findings": [
            {"subject": part.subject, **finding.as_dict()}
            for part in subjects
            for finding in part.findings
        ],
        "will_fail": will_fail(subjects),
    }


def will_fail(examined: Iterable[Examined]) -> bool:
    """Returns whether any finding is a failure."""
    return any(finding.level == "failure" for part in examined for finding in part.findings)


def _about_data(recipe: Recipe, *, readable: bool) -> Iterator[Finding]:
    from trainer.doctor.preflight import about_data

    return about_data(recipe, readable=readable)


def _choose_accelerator() -> None:
    """Tells DeepSpeed that there is no GPU, which it would otherwise find out with a warning."""
    try:
        import torch
    except Exception:  # a finding of its own
        return
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
