"""`trainer report`: writes the documents of a run."""

import difflib
from pathlib import Path

import click

from trainer.cli.options import DEBUG, DirectoryName
from trainer.errors import DONE, ConfigError
from trainer.wording import excerpt


@click.command("report")
@click.argument("run_dirs", nargs=-1, required=True, type=DirectoryName())
@click.option(
    "--output", metavar="DIR", type=DirectoryName(), help="Write there; else into RUN_DIR."
)
@click.option(
    "--format",
    "formats",
    default="html,md",
    metavar="html,md,pdf,latex",
    show_default=True,
    help="What to write; latex is tables as LaTeX and CSV, figures as PDF and SVG.",
)
@DEBUG
def command(run_dirs: tuple[Path, ...], output: Path | None, formats: str) -> int:
    """Write the report of RUN_DIRS again, from what the directories hold."""
    chosen = _formats(formats)
    from trainer.report.documents import write_report
    from trainer.report.recorded import read_run
    from trainer.report.report import report_of

    reports = [report_of(read_run(directory)) for directory in run_dirs]
    for file in write_report(reports, output or run_dirs[0], chosen):
        print(file)
    return DONE


def _formats(text: str) -> list[str]:
    """Returns the formats that --format names, each once; raises ConfigError for another name."""
    known = ("html", "md", "pdf", "latex")
    names = list(dict.fromkeys(name.strip().lower() for name in text.split(",")))
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name[:100], known, n=1, cutoff=0.4)
            raise ConfigError(
                f"--format: {excerpt(repr(name))} is not one of {', '.join(known)}",
                key="--format",
                value=name,
                hint=f"did you mean {near[0]}?" if near else None,
            )
    return names
