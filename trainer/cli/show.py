"""`trainer show`: prints a recipe with every key that it leaves to its default."""

import click

from trainer.cli.options import DEBUG, RECIPE, SET
from trainer.errors import DONE


@click.command("show")
@RECIPE
@SET
@DEBUG
def command(recipe: str, overrides: tuple[str, ...]) -> int:
    """Print the resolved, complete RECIPE and stop."""
    from trainer.recipe.reading import dump_yaml
    from trainer.tasks.recipe import load_recipe

    print(dump_yaml(load_recipe(recipe, overrides)), end="")
    return DONE
