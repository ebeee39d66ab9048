"""`trainer doctor`: prints what would fail or go wrong on this machine and with a recipe."""

import json
import shlex
import sys
from contextlib import redirect_stdout

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
    settings = [part for override in overrides for part in ("--set", override)]
    name = shlex.join([recipe or "", *settings])
    output = sys.stdout
    with quieted_libraries(), redirect_stdout(sys.stderr):  # libraries print there, too
        from trainer.doctor.examination import Examined, as_dict, examine, will_fail

        subjects = list[Examined]()
        for subject in examine(resolved, name):
            subjects.append(subject)
            if not as_json and is_local_main():
                print(subject.as_text(), file=output, flush=True)
    fails = will_fail(subjects)
    if is_local_main() and as_json:
        print(json.dumps(as_dict(subjects)))
    elif is_local_main() and fails:
        findings = [finding for subject in subjects for finding in subject.findings]
        number = sum(finding.level == "failure" for finding in findings)
        print(f"\n{number} finding{'s' * (number > 1)} will make a run fail")
    return WRONG if fails else DONE
