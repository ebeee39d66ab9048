"""The analysis of a run: what its numbers are worth, what is wrong with them, and a summary."""

from dataclasses import replace
from typing import Any

from trainer.errors import ConfigError
from trainer.report.answers.failures import failures
from trainer.report.diagnosis import diagnose_run
from trainer.report.recorded import RecordedRun
from trainer.report.sentences import summary
from trainer.report.statistics.evidence import statistics


def analysis(run: RecordedRun) -> dict[str, Any]:
    """Returns `statistics`, `failures`, `diagnosis` and `summary`, as results.json holds them.

    They are computed from the other keys of results.json, metrics.jsonl and the answers in
    predictions/, so a run by an older version has them, too, as far as it recorded these. Raises
    RunDirectoryError if a file of answers cannot be read.
    """
    measured = statistics(run)
    findings = diagnose_run(replace(run, results={**run.results, "statistics": measured}))
    return {
        "statistics": measured,
        "failures": _failures(run),
        "diagnosis": [finding.as_dict() for finding in findings],
        "summary": summary(run, measured, findings),
    }


def _failures(run: RecordedRun) -> dict[str, Any]:
    try:
        return failures(run)
    except ConfigError:  # the task of a package that is not installed here
        return {}
