"""`trainer report`: writes the documents of one run or of several."""

from pathlib import Path

import click

from trainer.cli.options import DEBUG, DirectoryName
from trainer.errors import DONE


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
@click.option("--by", metavar="KEY.PATH", help="Group several runs by this key.")
@DEBUG
def command(run_dirs: tuple[Path, ...], output: Path | None, formats: str, by: str | None) -> int:
    """Write the report of RUN_DIRS, or of all runs in a sweep's folder, from what they hold."""
    from trainer.report.documents import write_reports

    for file in write_reports(run_dirs, output, formats.split(","), by):
        print(file)
    return DONE
