"""`trainer plan`: prints what a recipe needs before it starts."""

import json
import re
from pathlib import Path

import click

from trainer.cli.options import DEBUG, JSON, RECIPE, SET
from trainer.errors import DONE

UNITS = {"mib": 2**20, "gib": 2**30, "mb": 10**6, "gb": 10**9}


def _in_bytes(_ctx: click.Context, _param: click.Parameter, value: str | None) -> int | None:
    """Returns a size such as 16GiB in bytes."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([mg]i?b)", value.lower())
    size = float(match[1]) * UNITS.get(match[2], 0) if match else 0
    if size < 1:
        raise click.BadParameter("give a size such as 16GiB or 24GB")
    return int(size)


@click.command("plan")
@RECIPE
@SET
@click.option("--gpu", metavar="NAME", help="Plan for this GPU: t4, rtx-4090, a100-80, h100 …")
@click.option(
    "--memory", metavar="SIZE", callback=_in_bytes, help="Memory of the GPU, such as 16GiB."
)
@click.option("--processes", type=click.IntRange(1, 1_000_000), help="One for each GPU.")
@click.option("--machines", type=click.IntRange(1, 1_000_000), help="Machines of the processes.")
@click.option("--config", type=click.Path(path_type=Path), help="A file of accelerate_configs/.")
@JSON
@DEBUG
def command(
    recipe: str,
    overrides: tuple[str, ...],
    gpu: str | None,
    memory: int | None,
    processes: int | None,
    machines: int | None,
    config: Path | None,
    as_json: bool,
) -> int:
    """Plan memory, time and disk of RECIPE, without weights, network or GPU.

    Without --gpu and --memory it is for this machine's GPU, or for each of a list.
    """
    from trainer.distributed.environment_variables import check_variables
    from trainer.process.environment import quieted_libraries
    from trainer.tasks.recipe import load_recipe

    check_variables()
    resolved = load_recipe(recipe, overrides)
    with quieted_libraries():
        from trainer.planning.plan import plan

        planned = plan(
            resolved,
            gpu=gpu,
            memory=memory,
            processes=processes,
            machines=machines,
            config=config,
        )
    print(json.dumps(planned.as_dict()) if as_json else planned)
    return DONE
