"""`trainer recipes`: lists the recipes that come with the package."""

import click

from trainer.errors import DONE


@click.command("recipes")
def command() -> int:
    """List the shipped recipes."""
    from trainer.recipe.shipped import shipped_recipes

    names = shipped_recipes()
    width = max(map(len, names))
    for name, purpose in names.items():
        print(f"{name:<{width}}  {purpose}")
    return DONE
