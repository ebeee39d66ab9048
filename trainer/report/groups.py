"""Groups of finished runs whose recipes agree."""

import difflib
import json
from typing import Any

from trainer.errors import ConfigError
from trainer.process.finished_runs import FinishedRun

SAME_RECIPE = ("seed", "task.check_labels")
"""Keys in which runs of a group may differ: the second decides what is refused, not learned."""


def group_runs(
    runs: list[FinishedRun], by: str | None
) -> list[tuple[dict[str, Any], list[FinishedRun]]]:
    """Returns the settings that tell each group from the others, and its runs by seed.

    A group is of runs whose recipes differ only in `seed` or, with `by`, of those that agree in
    that dotted key, a value or a section. Raises ConfigError where no recipe has it.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_deciding(run, by), sort_keys=True), []).append(run)
    settings = [_deciding(members[0], by) for members in groups.values()]
    keys = list(dict.fromkeys(key for one in settings for key in one))
    if by is not None:
        if not keys:
            raise ConfigError(f"--by {by}: no recipe has this key{_hint(by, runs)}")
    else:
        keys = differing(settings)
        shared = [key for key in keys if all(key in one for one in settings)]
        # What only some recipes have, such as the rank of adapters, follows from what tells.
        if len({json.dumps([one[key] for key in shared]) for one in settings}) == len(settings):
            keys = shared
    return [
        (
            # Where a key is absent, others tell; where all are, that they are is what tells.
            {key: one[key] for key in keys if key in one} or dict.fromkeys(keys),
            sorted(members, key=lambda run: run.recipe["seed"]),
        )
        for one, members in zip(settings, groups.values(), strict=True)
    ]


def differing(settings: list[dict[str, Any]]) -> list[str]:
    """Returns the dotted keys in which recipes are not all alike; a null is not an absent key."""
    return [
        key
        for key in dict.fromkeys(key for one in settings for key in one)
        if len({json.dumps(one[key]) if key in one else "" for one in settings}) > 1
    ]


def _deciding(run: FinishedRun, by: str | None) -> dict[str, Any]:
    """Returns the part of a recipe that is the same for all runs of a group."""
    return {
        key: value
        for key, value in run.recipe.items()
        if (key not in SAME_RECIPE if by is None else f"{key}.".startswith(f"{by}."))
    }


def _hint(by: str, runs: list[FinishedRun]) -> str:
    keys = dict.fromkeys(key for run in runs for key in run.recipe)
    same_leaf = [key for key in keys if key.rpartition(".")[2] == by]
    near = same_leaf or difflib.get_close_matches(by, keys, n=1)
    return f"; did you mean {near[0]}?" if near else "; config.yaml of a run lists them"
