"""`trainer evaluate`: prints the metrics of a checkpoint."""

import json
from pathlib import Path
from typing import Any

import click

from trainer.cli.options import DEBUG, JSON, RUN_DIR
from trainer.errors import DONE, ConfigError


@click.command("evaluate")
@RUN_DIR
@click.option("--checkpoint", default="best", metavar="best|last|STEP", show_default=True)
@click.option("--split", metavar="NAME", help="A split of the run; by default, validation.")
@click.option("--data", metavar="FILE", help="A file or a folder of rows in place of a split.")
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="data.columns.KEY=NAME",
    help="The name of a column in FILE, if it is not the run's.",
)
@JSON
@DEBUG
def command(
    run_dir: Path,
    checkpoint: str,
    split: str | None,
    data: str | None,
    overrides: tuple[str, ...],
    as_json: bool,
) -> int:
    """Evaluate a checkpoint of RUN_DIR on one of its splits, or on other data."""
    from trainer.api import evaluate
    from trainer.distributed.environment_variables import is_main
    from trainer.recipe.reading import parsed_override

    if data is not None and split is not None:
        raise ConfigError(
            "--data measures other rows than a split of the run",
            key="--split",
            value=split,
            hint="give --data or --split",
        )
    metrics = evaluate(
        run_dir,
        split=split or "validation",
        checkpoint=checkpoint,
        data=data,
        overrides=dict(map(parsed_override, overrides)),
    )
    if not is_main():
        return DONE
    if as_json:
        print(json.dumps(metrics))
        return DONE
    other = metrics.pop("other_data", None)
    if other is not None:
        _print_other(other)
    for name, value in metrics.items():
        print(f"{name:<16} {f'{value:.4f}' if isinstance(value, float) else value}")
    return DONE


def _print_other(other: dict[str, Any]) -> None:
    from trainer.report.markup import plain

    print(f"{'data':<16} {plain(other['source'])}, {other['rows']:,} rows, not the run's own")
    for note in other["notes"]:
        print(f"  note: {plain(note)}")
