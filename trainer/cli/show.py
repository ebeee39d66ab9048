"""`trainer show`: prints a recipe with its defaults, or explains a key of recipes."""

import click

from trainer.cli.options import DEBUG, SET
from trainer.errors import DONE


@click.command("show")
@click.argument("recipe", required=False)
@SET
@click.option("--explain", metavar="KEY.PATH", help="Explain a key or a section of any recipe.")
@DEBUG
def command(recipe: str | None, overrides: tuple[str, ...], explain: str | None) -> int:
    """Print the resolved, complete RECIPE, or explain a key, and stop."""
    from trainer.recipe.reading import dump_yaml
    from trainer.tasks.recipe import explain_key, load_recipe

    if (recipe is None) == (explain is None):
        raise click.UsageError("give either RECIPE or --explain KEY.PATH")
    if explain is not None:
        print(explain_key(explain))
    elif recipe is not None:
        print(dump_yaml(load_recipe(recipe, overrides)), end="")
    return DONE
