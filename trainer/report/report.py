"""Report: everything that the documents of a run show, as data."""

from dataclasses import dataclass
from typing import Any

from trainer.report.recorded import RecordedRun

SPLITS = ("validation", "test")
MATTERING = ("wrong", "doubtful")
"""The severities of findings that stand at the head of a report."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the documents of a run show; results.json describes the parts."""

    run: RecordedRun
    summary: str
    """A paragraph in words; empty if the run did not record one."""
    statistics: dict[str, Any]
    failures: dict[str, Any]
    findings: list[dict[str, Any]]
    """Worst first."""
    examples: dict[str, list[dict[str, Any]]]
    """Answers by split, sampled by kind."""
    missing: tuple[str, ...] = ()
    """What this run did not record, as nouns."""

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def results(self) -> dict[str, Any]:
        return self.run.results

    @property
    def notes(self) -> list[str]:
        """The warnings of the run that are not a finding."""
        found = {
            text
            for finding in self.findings
            for text in (finding["message"], f"{finding['split']}: {finding['message']}")
        }
        return [note for note in self.results.get("warnings", []) if note not in found]


def report_of(run: RecordedRun) -> Report:
    """Returns the report of a run, without the parts that an older version did not record."""
    results = run.results
    parts = {
        "summary": "a summary",
        "statistics": "intervals and tests",
        "failures": "an analysis of its answers",
        "diagnosis": "a diagnosis",
    }
    examples = {split: run.answers(f"examples-{split}") for split in SPLITS}
    return Report(
        run=run,
        summary=results.get("summary", ""),
        statistics=results.get("statistics", {}),
        failures=results.get("failures", {}),
        findings=results.get("diagnosis", []),
        examples={split: answers for split, answers in examples.items() if answers},
        missing=tuple(noun for key, noun in parts.items() if key not in results),
    )
