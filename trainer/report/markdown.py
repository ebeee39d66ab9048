"""A report as Markdown, with tables that also align as plain text."""

from trainer.report.export_sentence import model_sentence
from trainer.report.markup import as_markdown
from trainer.report.plan_sentence import plan_sentence
from trainer.report.report import MATTERING, SPLITS, Report
from trainer.report.tables.failures import churn_table, classes_table
from trainer.report.tables.measured import (
    detectable,
    measured_table,
    tests_table,
    zero_shot_note,
)
from trainer.report.tables.table import Table
from trainer.report.tables.training import data_table, epochs_table


def markdown(report: Report) -> str:
    """Returns the report as Markdown; text from data and names is escaped."""
    results, shown = report.results, as_markdown
    counts, processes = results["parameters"], results["processes"]
    lines = [f"# {shown(report.name)}", ""]
    lines += [shown(report.summary), ""] if report.summary else []
    lines += _findings(report)
    for split in SPLITS:
        measured = measured_table(report, split)
        if measured is None:
            continue
        lines += [f"## {split}", "", *as_lines(measured), ""]
        for line in (zero_shot_note(report, split), detectable(report, split)):
            lines += [line, ""] if line else []
        tests = tests_table(report, split)
        lines += [*as_lines(tests), ""] if tests else []
    lines += _section("Answers", churn_table(report))
    for split in SPLITS:
        lines += _section(f"Classes of {split}", classes_table(report, split))
    lines += _section("Epochs", epochs_table(report))
    lines += _section("Data", data_table(report))
    lines += ["## Run", ""]
    lines += [
        f"- parameters: {counts['total']:,}, of which {counts['trainable']:,} trained; "
        f"{counts['stored']:,} elements stored",
        f"- {processes} process{'' if processes == 1 else 'es'}, {results['precision']}, "
        f"{results['seconds']['total']:.1f} s, peak memory "
        f"{results['peak_memory_bytes'] / 2**20:,.0f} MiB a process",
        *(f"- {sentence}" for sentence in [plan_sentence(results)] if sentence is not None),
        f"- {shown(model_sentence(results))}",
    ]
    if report.missing:
        lines.append(f"- not recorded by this run: {', '.join(report.missing)}")
    if report.notes:
        notes = (f"- {shown(note)}" for note in report.notes)
        lines += ["", "## Warnings and notes", "", *notes]
    return "\n".join(lines) + "\n"


def as_lines(shown: Table) -> list[str]:
    """Returns the lines of a Markdown table, with text from data escaped."""
    rows = [
        [
            text if column.numeric else as_markdown(text)
            for column, text in zip(shown.columns, row, strict=True)
        ]
        for row in shown.texts
    ]
    return table([as_markdown(column.title) for column in shown.columns], rows)


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """Returns the lines of a Markdown table of escaped cells, padded so that its columns align as
    plain text."""
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    rule = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [titles, rule, *rows]
    ]


def _section(title: str, shown: Table | None) -> list[str]:
    return [f"## {title}", "", *as_lines(shown), ""] if shown else []


def _findings(report: Report) -> list[str]:
    lines: list[str] = []
    for finding in report.findings:
        if finding["severity"] in MATTERING:
            about = f"{finding['split']}: " if finding["split"] else ""
            advice = f" Try: {as_markdown(finding['advice'])}" if finding["advice"] else ""
            message = as_markdown(f"{about}{finding['message']}")
            lines.append(f"- **{finding['severity']}**: {message}.{advice}")
    return [*lines, ""] if lines else []
