"""The diagnosis of a run."""

from dataclasses import replace

from trainer.report.recorded import RecordedRun
from trainer.tasks import task_named
from trainer.tasks.finding import Finding


def diagnose_run(run: RecordedRun) -> list[Finding]:
    """Returns what a reader of a run's numbers must know, worst first."""
    task = task_named(run.recipe["task"]["name"])
    measured = run.results["best"]["metrics"]
    return [
        replace(finding, split=split)
        for split, metrics in measured.items()
        for finding in task.diagnose(metrics)
    ]
