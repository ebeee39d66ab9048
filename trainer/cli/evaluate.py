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

    _check(split, data, overrides)
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


def _check(split: str | None, data: str | None, overrides: tuple[str, ...]) -> None:
    if data is not None and split is not None:
        raise ConfigError(
            "--data measures other rows than a split of the run",
            key="--split",
            value=split,
            hint="give --data or --split",
        )
    if overrides and data is None:
        raise ConfigError(
            "--set names the columns of other data",
            key="--set",
            value=overrides,
            hint="give --data FILE, too; the run's own columns cannot change",
        )


def _print_other(other: dict[str, Any]) -> None:
    print(f"{'data':<16} {other['source']}, {other['rows']:,} rows, not the run's own")
    for note in other["notes"]:
        print(f"  note: {note}")
