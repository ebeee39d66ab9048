"""The diagnosis of a run: where its numbers cannot be right, or mean less than they seem to."""

from trainer.report.diagnosis.counts import about_counts
from trainer.report.diagnosis.curves import about_curves
from trainer.report.diagnosis.data import about_data
from trainer.report.diagnosis.metrics import about_metrics
from trainer.report.diagnosis.perplexity import about_perplexity
from trainer.report.diagnosis.scales import about_scales
from trainer.report.diagnosis.significance import about_significance
from trainer.report.diagnosis.training import about_training
from trainer.report.recorded import RecordedRun
from trainer.tasks.finding import Finding

SEVERITIES = ("wrong", "doubtful", "note")
"""From the worst."""
IN_NOTES = ("seen-in-training", "truncated", "skipped-examples")
"""Codes of findings about which the notes of every run have a sentence already."""


def diagnose_run(run: RecordedRun) -> list[Finding]:
    """Returns what a reader of a run's numbers must know, worst first.

    Results of older versions lack keys, and are diagnosed as far as they go. Values that no run
    writes, such as None for a metric, are passed over.
    """
    subjects = (
        *(about_scales, about_perplexity, about_counts, about_data, about_training),
        *(about_metrics, about_significance, about_curves),
    )
    findings = [finding for about in subjects for finding in about(run)]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
