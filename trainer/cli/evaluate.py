"""`trainer evaluate`: prints the metrics of a checkpoint."""

import json
from pathlib import Path

import click

from trainer.cli.options import DEBUG, JSON, RUN_DIR
from trainer.errors import DONE


@click.command("evaluate")
@RUN_DIR
@click.option("--checkpoint", default="best", metavar="best|last|STEP", show_default=True)
@click.option("--split", default="validation", show_default=True)
@JSON
@DEBUG
def command(run_dir: Path, checkpoint: str, split: str, as_json: bool) -> int:
    """Evaluate a checkpoint of RUN_DIR on one split."""
    from trainer.api import evaluate
    from trainer.distributed.environment_variables import is_main

    metrics = evaluate(run_dir, split=split, checkpoint=checkpoint)
    if not is_main():
        return DONE
    if as_json:
        print(json.dumps(metrics))
    else:
        for name, value in metrics.items():
            print(f"{name:<16} {f'{value:.4f}' if isinstance(value, float) else value}")
    return DONE
