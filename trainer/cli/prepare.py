"""`trainer prepare`: fills the caches, so that `train` needs no network."""

import shlex

import click

from trainer.cli.options import DEBUG, RECIPE, SET
from trainer.errors import DONE


@click.command("prepare")
@RECIPE
@SET
@DEBUG
def command(recipe: str, overrides: tuple[str, ...]) -> int:
    """Fetch model, tokenizer and data of RECIPE, and tokenise, so that train needs no network."""
    from trainer.distributed.environment_variables import check_variables
    from trainer.process.environment import quieted_libraries
    from trainer.tasks.recipe import load_recipe

    check_variables()
    resolved = load_recipe(recipe, overrides)
    with quieted_libraries():
        from trainer.assembly.offline import fill_caches

        for line in fill_caches(resolved):
            print(line, flush=True)
    settings = [part for override in overrides for part in ("--set", override)]
    print("offline     HF_HUB_OFFLINE=1", shlex.join(["trainer", "train", recipe, *settings]))
    return DONE
