"""`trainer doctor`: prints what would fail or go wrong on this machine and with a recipe."""

import json
import shlex

import click

from trainer.cli.options import DEBUG, JSON, SET
from trainer.distributed.environment_variables import is_local_main
from trainer.errors import DONE, WRONG, ConfigError


@click.command("doctor")
@click.argument("recipe", required=False)
@SET
@JSON
@DEBUG
def command(recipe: str | None, overrides: tuple[str, ...], as_json: bool) -> int:
    """Examine this machine and, if given, RECIPE and its data; exit 2 if a run will fail."""
    from trainer.process.environment import quieted_libraries
    from trainer.tasks.recipe import load_recipe

    if recipe is None and overrides:
        raise ConfigError(
            "--set changes a value of a recipe", key="--set", value=overrides, hint="give RECIPE"
        )
    resolved = None if recipe is None else load_recipe(recipe, overrides)
    with quieted_libraries():
        from trainer.doctor.examination import Examined, as_dict, examine, will_fail

        settings = [part for override in overrides for part in ("--set", override)]
        examined = examine(resolved, shlex.join([recipe or "", *settings]))
        if as_json:
            values = as_dict(examined)
            _print(json.dumps(values))
            return WRONG if values["will_fail"] else DONE
        subjects = list[Examined]()
        for subject in examined:
            _print(subject.as_text())
            subjects.append(subject)
    if not will_fail(subjects):
        return DONE
    failures = sum(
        finding.level == "failure" for subject in subjects for finding in subject.findings
    )
    _print(f"\n{failures} finding{'s' * (failures > 1)} will make a run fail")
    return WRONG


def _print(text: str) -> None:
    """Prints a text, once per machine under a launcher."""
    if is_local_main():
        print(text, flush=True)
