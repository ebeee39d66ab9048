"""`trainer compare`: prints runs side by side."""

import json
from pathlib import Path

import click

from trainer.cli.options import DEBUG, JSON, DirectoryName
from trainer.errors import DONE


@click.command("compare")
@click.argument("run_dirs", nargs=-1, required=True, type=DirectoryName())
@click.option("--by", metavar="KEY.PATH", help="Group by this key; else by all but the seed.")
@JSON
@DEBUG
def command(run_dirs: tuple[Path, ...], by: str | None, as_json: bool) -> int:
    """Compare RUN_DIRS, or all runs in a sweep's folder: mean and deviation over seeds."""
    from trainer.report.comparison import compare, markdown

    comparison = compare(run_dirs, by)
    print(json.dumps(comparison, ensure_ascii=False) if as_json else markdown(comparison))
    return DONE
