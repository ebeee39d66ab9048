"""The documents of a run: page, Markdown, tables, figures and a printed page."""

from collections.abc import Sequence
from pathlib import Path

from trainer.errors import ConfigError
from trainer.files.durable import write_bytes, write_text
from trainer.process.run_entries import writing_to
from trainer.report.figures.answers import answer_plots
from trainer.report.figures.drawing import drawn
from trainer.report.figures.plot import Plot
from trainer.report.figures.training import training_plots
from trainer.report.latex import latex_table
from trainer.report.markdown import markdown
from trainer.report.page.render import page
from trainer.report.printing import browser, printed
from trainer.report.report import SPLITS, Report
from trainer.report.spreadsheet import csv_table
from trainer.report.tables import failures, measured, training
from trainer.report.tables.table import Table

FORMATS = ("html", "md", "pdf", "latex")


def write_report(
    reports: Sequence[Report], destination: Path, formats: Sequence[str]
) -> list[Path]:
    """Writes the documents of a run into a folder, and returns their files as they were written.

    "html" is report.html, "md" report.md, "pdf" report.pdf, and "latex" the folders tables/, with
    CSV beside LaTeX, and figures/, with SVG beside PDF. Each file is the old one or complete; the
    same run gives the same bytes, except for report.pdf. Raises ConfigError if nothing here prints,
    and RunDirectoryError if a file cannot be written.
    """
    if len(reports) != 1:
        raise ConfigError(
            f"a report is about one run, not {len(reports)}",
            key="RUN_DIR",
            hint="`trainer compare` shows several",
        )
    program = browser() if "pdf" in formats else None
    report = reports[0]
    with writing_to(destination):
        destination.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        in_page = "html" in formats or program is not None
        plots = plots_of(report)
        latex = "latex" in formats
        figures = drawn(plots, with_pdf=latex) if in_page or latex else []
        if latex:
            for table in tables_of(report):
                written += _write_all(
                    destination / "tables",
                    {
                        f"{table.name}.csv": csv_table(table),
                        f"{table.name}.tex": latex_table(table),
                    },
                )
            for figure in figures:
                files = {f"{figure.name}.svg": figure.svg, f"{figure.name}.pdf": figure.pdf or b""}
                written += _write_all(destination / "figures", files)
        html = page(report, figures) if in_page else ""
        if program is not None:
            written += _write_all(destination, {"report.pdf": printed(html, program)})
        if "html" in formats:
            written += _write_all(destination, {"report.html": html})
        if "md" in formats:
            written += _write_all(destination, {"report.md": markdown(report)})
    return written


def plots_of(report: Report) -> list[Plot]:
    """Returns every plot of a report."""
    return [*training_plots(report), *answer_plots(report)]


def tables_of(report: Report) -> list[Table]:
    """Returns every table of a report."""
    tables: list[Table | None] = []
    for split in SPLITS:
        tables += [measured.measured_table(report, split), measured.tests_table(report, split)]
    tables.append(failures.churn_table(report))
    for split in SPLITS:
        tables += [
            failures.confusion_table(report, split),
            failures.classes_table(report, split),
            failures.reliability_table(report, split),
            failures.thresholds_table(report, split),
            *failures.facet_tables(report, split),
        ]
    tables += [
        training.epochs_table(report),
        training.totals_table(report),
        training.parameters_table(report),
        training.data_table(report),
        training.diagnosis_table(report),
    ]
    return [table for table in tables if table is not None]


def _write_all(folder: Path, contents: dict[str, str | bytes]) -> list[Path]:
    folder.mkdir(exist_ok=True)
    for name, content in contents.items():
        if isinstance(content, bytes):
            write_bytes(folder / name, content)
        else:
            write_text(folder / name, content)
    return [folder / name for name in contents]
