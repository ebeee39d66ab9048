"""`trainer params`: prints the parameters of a recipe's model."""

import json

import click

from trainer.cli.options import DEBUG, JSON, RECIPE, SET
from trainer.errors import DONE


@click.command("params")
@RECIPE
@SET
@click.option("--full", is_flag=True, help="Show every layer, including identical ones.")
@JSON
@DEBUG
def command(recipe: str, overrides: tuple[str, ...], full: bool, as_json: bool) -> int:
    """Count the parameters of RECIPE's model by module, without its weights."""
    from trainer.distributed.environment_variables import check_variables
    from trainer.process.environment import quieted_libraries
    from trainer.tasks.recipe import load_recipe

    check_variables()
    resolved = load_recipe(recipe, overrides)
    with quieted_libraries():
        from trainer.planning.parameters import as_json as values
        from trainer.planning.parameters import as_text, count

        counts = count(resolved)
    print(json.dumps(values(counts, full=full)) if as_json else as_text(counts, full=full))
    return DONE
