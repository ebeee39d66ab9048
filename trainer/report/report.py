"""Report: everything that the documents of a run show, as data."""

from dataclasses import dataclass
from typing import Any

from trainer.errors import RunDirectoryError
from trainer.report.analysis import analysis
from trainer.report.recorded import SPLITS, RecordedRun, answers_file

MATTERING = ("wrong", "doubtful")
"""The severities of findings that stand at the head of a report."""


RECORDED = {
    "data": "what its data was",
    "learned": "which parameters got a gradient",
    "environment": "its starts and restarts",
}
"""What runs of older versions did not record: key in results.json to words."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the documents of a run show; results.json describes the parts."""

    run: RecordedRun
    summary: str
    """A paragraph in words."""
    statistics: dict[str, Any]
    failures: dict[str, Any]
    findings: list[dict[str, Any]]
    """Worst first."""
    examples: dict[str, list[dict[str, Any]]]
    """Answers by split, sampled by kind."""
    missing: tuple[str, ...] = ()
    """What this run did not record, as clauses such as "what its data was"."""

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def results(self) -> dict[str, Any]:
        return self.run.results

    @property
    def notes(self) -> list[str]:
        """The warnings of the run that are not a finding."""
        diagnosed = {
            text
            for finding in self.findings
            for text in (finding["message"], f"{finding['split']}: {finding['message']}")
        }
        return [note for note in self.results.get("warnings", []) if note not in diagnosed]


def report_of(run: RecordedRun) -> Report:
    """Returns the report of a run. What a run of an older version did not record is computed, or
    left out and listed in `missing`.

    Raises RunDirectoryError if a file of answers cannot be read.
    """
    results = run.results if "statistics" in run.results else {**run.results, **analysis(run)}
    examples = {split: _examples(run, split) for split in SPLITS}
    return Report(
        run=run,
        summary=results["summary"],
        statistics=results["statistics"],
        failures=results["failures"],
        findings=results["diagnosis"],
        examples={split: answers for split, answers in examples.items() if answers},
        missing=tuple(clause for key, clause in RECORDED.items() if key not in run.results),
    )


def _examples(run: RecordedRun, split: str) -> list[dict[str, Any]]:
    examples = run.answers(f"examples-{split}")
    for number, example in enumerate(examples, start=1):
        sound = (
            example.keys() >= {"id", "kind", "gold", "before", "after", "confidence", "score"}
            and isinstance(example.get("texts"), dict)
            and isinstance(example.get("facets"), dict)
            and isinstance(example["kind"], str)
            and all(isinstance(example[key], float | int | None) for key in ("confidence", "score"))
            and all(isinstance(example[key], str | None) for key in ("gold", "before", "after"))
            and all(
                isinstance(text, str)
                for text in [*example["texts"].values(), *example["facets"].values()]
            )
        )
        if not sound:
            file = answers_file(run.directory, f"examples-{split}")
            raise RunDirectoryError(
                f"{file}, line {number}: not an example as a run writes it",
                key=str(file),
                value=number,
                hint="restore it, or remove it to report without it",
            )
    return examples
