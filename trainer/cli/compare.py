"""`trainer compare`: prints runs side by side."""

import json
from pathlib import Path

import click

from trainer.cli.options import DEBUG, JSON, DirectoryName
from trainer.errors import DONE, UNMET


@click.command("compare")
@click.argument("run_dirs", nargs=-1, required=True, type=DirectoryName())
@click.option("--by", metavar="KEY.PATH", help="Group by this key; else by all but the seed.")
@click.option(
    "--require",
    "required",
    multiple=True,
    metavar="SPLIT.METRIC>=NUMBER",
    help="End with code 3 unless every run fulfils this.",
)
@click.option(
    "--output", metavar="DIR", type=DirectoryName(), help="Also write report.html and .md there."
)
@JSON
@DEBUG
def command(
    run_dirs: tuple[Path, ...],
    by: str | None,
    required: tuple[str, ...],
    output: Path | None,
    as_json: bool,
) -> int:
    """Compare RUN_DIRS, or all runs in a sweep's folder: mean and deviation over seeds."""
    from trainer.report.comparison.compare import compare, markdown
    from trainer.report.comparison.requirements import outcome, parse_requirement

    requirements = [parse_requirement(text) for text in required]
    comparison = compare(run_dirs, by, requirements)
    if as_json:
        print(json.dumps(comparison, ensure_ascii=False))
    else:
        print("\n".join([markdown(comparison), *map(outcome, comparison["requirements"])]))
    if output is not None:
        from trainer.report.documents import write_reports

        write_reports(run_dirs, output, ["html", "md"], by)
    return DONE if all(checked["holds"] for checked in comparison["requirements"]) else UNMET
