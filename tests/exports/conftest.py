"""Exports of untrained runs, each made once."""

from collections.abc import Callable, Generator
from contextlib import ExitStack
from typing import Any

import pytest


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Generator[Callable[..., Any]]:
    """Returns the `Exported` of a task's case; do not change its folder."""
    from support.exported_run import Exported, export_untrained
    from support.task_cases import CASES

    from trainer.engines.accelerator import launched
    from trainer.tasks.recipe import parse_recipe

    made: dict[str, Exported] = {}
    with ExitStack() as stack:

        def export(case: str) -> Exported:
            if case not in made:
                root, recipe = tmp_path_factory.mktemp(case), parse_recipe(CASES[case].recipe(), "")
                accelerator = stack.enter_context(launched(recipe, root / "run"))
                made[case] = export_untrained(recipe, accelerator, root)
            return made[case]

        yield export
