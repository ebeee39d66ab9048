"""Groups of finished runs whose recipes agree in everything but the seed, or in one key."""

import difflib
import json
from typing import Any

from trainer.errors import ConfigError
from trainer.process.finished_runs import FinishedRun

SAME_RECIPE = ("seed", "task.check_labels")
"""Keys in which the runs of a group may differ; the second changes only which data is refused."""


def group_runs(
    runs: list[FinishedRun], by: str | None
) -> list[tuple[dict[str, Any], list[FinishedRun]]]:
    """Returns, for each group, the settings that distinguish it and its runs, ordered by seed.

    Recipes in a group differ only in `seed`; with `by`, the dotted key of a value or a section,
    they agree in that key. Raises ConfigError if no recipe has the key.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_deciding(run, by), sort_keys=True), []).append(run)
    settings = [_deciding(members[0], by) for members in groups.values()]
    keys = list(dict.fromkeys(key for values in settings for key in values))
    if by is not None:
        if not keys:
            raise ConfigError(
                f"--by {by}: no recipe has this key", key="--by", value=by, hint=_hint(by, runs)
            )
    else:
        keys = differing(settings)
        shared = [key for key in keys if all(key in values for values in settings)]
        # If keys that all recipes have distinguish the groups, others (such as the rank of
        # adapters) only follow from them.
        distinct = {json.dumps([values[key] for key in shared]) for values in settings}
        if len(distinct) == len(settings):
            keys = shared
    return [
        (
            # A group without any of these keys is the one that lacks them.
            {key: values[key] for key in keys if key in values} or dict.fromkeys(keys),
            sorted(members, key=lambda run: run.recipe["seed"]),
        )
        for values, members in zip(settings, groups.values(), strict=True)
    ]


def differing(settings: list[dict[str, Any]]) -> list[str]:
    """Returns the dotted keys in which recipes differ; null differs from an absent key."""
    return [
        key
        for key in dict.fromkeys(key for values in settings for key in values)
        if len({json.dumps(values[key]) if key in values else "" for values in settings}) > 1
    ]


def _deciding(run: FinishedRun, by: str | None) -> dict[str, Any]:
    """Returns the part of a recipe in which all runs of a group agree."""
    return {
        key: value
        for key, value in run.recipe.items()
        if (key not in SAME_RECIPE if by is None else f"{key}.".startswith(f"{by}."))
    }


def _hint(by: str, runs: list[FinishedRun]) -> str:
    keys = dict.fromkeys(key for run in runs for key in run.recipe)
    same_leaf = [key for key in keys if key.rpartition(".")[2] == by]
    near = same_leaf or difflib.get_close_matches(by, keys, n=1)
    return f"did you mean {near[0]}?" if near else "config.yaml of a run lists them"
