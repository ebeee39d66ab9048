"""`trainer plan`: prints what a recipe needs before it starts."""

import json
from pathlib import Path

import click

from trainer.cli.options import DEBUG, JSON, RECIPE, SET
from trainer.errors import DONE


@click.command("plan")
@RECIPE
@SET
@click.option("--gpu", metavar="NAME", help="Plan for this GPU: t4, rtx-4090, a100-80, h100 …")
@click.option("--memory", metavar="SIZE", help="Memory of the GPU, such as 16GiB.")
@click.option("--processes", type=click.IntRange(1, 1_000_000), help="One for each GPU.")
@click.option("--nodes", type=click.IntRange(1, 1_000_000), help="Nodes that hold the processes.")
@click.option("--config", type=click.Path(path_type=Path), help="A file of accelerate_configs/.")
@JSON
@DEBUG
def command(
    recipe: str,
    overrides: tuple[str, ...],
    gpu: str | None,
    memory: str | None,
    processes: int | None,
    nodes: int | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Plan memory, time and disk of RECIPE, without weights, network or GPU.

    Without --gpu and --memory it is for this machine's GPU, or for each of a list.
    """
    from trainer.api import plan
    from trainer.tasks.recipe import load_recipe

    planned = plan(
        load_recipe(recipe, overrides),
        gpu=gpu,
        memory=memory,
        processes=processes,
        nodes=nodes,
        config=config,
    )
    print(json.dumps(planned.as_dict()) if as_json else planned)
    return DONE
