"""What the run's own task finds suspicious about its metrics."""

from dataclasses import replace

from trainer.errors import TrainerError
from trainer.report.diagnosis.measured import mapping, measured, reported
from trainer.report.recorded import RecordedRun
from trainer.tasks import task_named
from trainer.tasks.finding import Finding

ZERO_SHOT = "zero-shot"


def about_metrics(run: RecordedRun) -> list[Finding]:
    """Returns what the task finds in its metrics at the exported step, and zero-shot.

    Empty if the task belongs to a package that is not installed.
    """
    try:
        task = task_named(str(mapping(run.recipe, "task").get("name")))
    except TrainerError:
        return []
    zero_shot = [one for one in measured(run.results) if one.column == ZERO_SHOT]
    return [
        replace(finding, split=f"{prefix}{one.split}")
        for prefix, columns in ((f"{ZERO_SHOT} ", zero_shot), ("", reported(run.results)))
        for one in columns
        for finding in task.diagnose(one.metrics)
    ]
