"""The documents of one run or of several: page, Markdown, tables, figures and a printed page."""

import difflib
from collections.abc import Sequence
from pathlib import Path

from trainer.errors import ConfigError, RunDirectoryError
from trainer.files.durable import write_bytes, write_text
from trainer.process.run_entries import writing_to
from trainer.process.status import read_status
from trainer.report.comparison.markdown import several_markdown
from trainer.report.comparison.several import SeveralRuns, several_of
from trainer.report.figures.answers import answer_plots
from trainer.report.figures.drawing import Drawn, drawn
from trainer.report.figures.plot import Plot
from trainer.report.figures.several import several_plots
from trainer.report.figures.training import training_plots
from trainer.report.latex import latex_table
from trainer.report.markdown import markdown
from trainer.report.page.render import page
from trainer.report.page.several import several_page
from trainer.report.printing import browser, printed
from trainer.report.recorded import read_run
from trainer.report.report import SPLITS, Report, report_of
from trainer.report.spreadsheet import csv_table
from trainer.report.tables import failures, measured, training
from trainer.report.tables.several import several_tables
from trainer.report.tables.table import Table
from trainer.wording import excerpt

FORMATS = ("html", "md", "pdf", "latex")


def write_reports(
    directories: Sequence[Path],
    output: Path | None,
    formats: Sequence[str],
    by: str | None = None,
) -> list[Path]:
    """Writes the documents of the run in a directory, or of the runs in several or in a sweep's
    folder, and returns their files.

    They go to `output` or else into the only directory. Several runs are grouped as `compare` does.
    Raises ConfigError for an unknown format, or if directories, formats or `output` are missing,
    and the errors of `read_run`, `several_of` and `write_report`.
    """
    if not directories:
        raise ConfigError(
            "RUN_DIR: a report needs a run",
            key="RUN_DIR",
            hint="name the directory of a run, or the folder of a sweep",
        )
    names = _known(formats)
    if output is None and len(directories) > 1:
        raise ConfigError(
            "--output: the report of several runs belongs to none of their directories",
            key="--output",
            hint="name a folder for it",
        )
    first = directories[0]
    if not first.exists():
        raise RunDirectoryError(
            f"{first} does not exist", key="RUN_DIR", value=str(first), hint="name a run directory"
        )
    if len(directories) == 1 and (first / "results.json").is_file():
        report: Report | SeveralRuns = report_of(read_run(first))
    elif len(directories) == 1 and (first / "config.yaml").is_file():
        raise _unfinished(first)
    else:
        report = several_of(tuple(directories), by, first.absolute().name)
    return write_report(report, output or first, names)


def _unfinished(directory: Path) -> RunDirectoryError:
    """Returns why the run in a directory has no report yet."""
    status = read_status(directory)
    state = excerpt(status.get("state", "not begun"), 20)
    running = state == "running"
    return RunDirectoryError(
        f"the run in {directory} is {state}, and a report needs a finished one",
        key="RUN_DIR",
        value=str(directory),
        hint="`trainer watch` shows it" if running else "repeat its command to finish it",
    )


def _known(formats: Sequence[str]) -> list[str]:
    """Returns the formats, each once; raises ConfigError for another name, or for none."""
    names = list(dict.fromkeys(name.strip().lower() for name in formats))
    for name in names:
        if name not in FORMATS:
            near = difflib.get_close_matches(name[:100], FORMATS, n=1, cutoff=0.4)
            raise ConfigError(
                f"--format: {excerpt(repr(name))} is not one of {', '.join(FORMATS)}",
                key="--format",
                value=name,
                hint=f"did you mean {near[0]}?" if near else None,
            )
    if not names:
        raise ConfigError(
            "--format: a report needs a format",
            key="--format",
            hint=f"name some of {', '.join(FORMATS)}",
        )
    return names


def write_report(
    report: Report | SeveralRuns, destination: Path, formats: Sequence[str]
) -> list[Path]:
    """Writes the documents of a run, or of several, into a folder, and returns their files as they
    were written.

    "html" is report.html, "md" report.md, "pdf" report.pdf, and "latex" the folders tables/, with
    CSV beside LaTeX, and figures/, with SVG beside PDF. Each file is the old one or complete; the
    same run gives the same bytes, except for report.pdf. Raises ConfigError if nothing here prints,
    and RunDirectoryError if a file cannot be written.
    """
    program = browser() if "pdf" in formats else None
    with writing_to(destination):
        destination.mkdir(parents=True, exist_ok=True)
        written: list[Path] = []
        in_page, latex = "html" in formats or program is not None, "latex" in formats
        figures = drawn(plots_of(report), with_pdf=latex) if in_page or latex else []
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
        html = _page(report, figures) if in_page else ""
        if program is not None:
            written += _write_all(destination, {"report.pdf": printed(html, program)})
        if "html" in formats:
            written += _write_all(destination, {"report.html": html})
        if "md" in formats:
            written += _write_all(destination, {"report.md": _markdown(report)})
    return written


def _page(report: Report | SeveralRuns, figures: Sequence[Drawn]) -> str:
    if isinstance(report, SeveralRuns):
        return several_page(report, figures)
    return page(report, figures)


def _markdown(report: Report | SeveralRuns) -> str:
    return several_markdown(report) if isinstance(report, SeveralRuns) else markdown(report)


def plots_of(report: Report | SeveralRuns) -> list[Plot]:
    """Returns every plot of a report."""
    if isinstance(report, SeveralRuns):
        return several_plots(report)
    return [*training_plots(report), *answer_plots(report)]


def tables_of(report: Report | SeveralRuns) -> list[Table]:
    """Returns every table of a report."""
    if isinstance(report, SeveralRuns):
        return several_tables(report)
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
