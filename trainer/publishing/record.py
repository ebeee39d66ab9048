"""trainer.json: the file by which a push knows whose model a repository holds."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from typing import Any

from trainer.files.plain import parse_json
from trainer.process.continuation import LENGTH
from trainer.process.run_directory import MAY_DIFFER
from trainer.publishing.redaction import public_recipe
from trainer.recipe.keys import flatten
from trainer.recipe.schema import Recipe

RECORD = "trainer.json"
FORMAT = 1
MOST_BYTES = 2**20
"""Maximum size of a record that is read."""
IGNORED = (*MAY_DIFFER, *LENGTH)
"""Keys that do not make another recipe: how a run is saved and tracked, and how long it is."""


def record_text(
    recipe: Recipe,
    *,
    step: int,
    part: str,
    verified: bool | None,
    files: Mapping[str, Mapping[str, Any]],
    sent: Iterable[str],
) -> str:
    """Returns the content of trainer.json.

    `part` is "model" or "adapter", `files` the fingerprints of the files it is read from, `sent`
    the paths of all files in the repository that come from the run, and `verified` is None for a
    run that does not say.
    """
    values = {
        "format": FORMAT,
        "trainer": version("trainer"),
        "recipe": recipe_digest(recipe),
        "step": step,
        "part": part,
        "verified": verified,
        "files": files,
        "sent": sorted({*sent, RECORD}),
    }
    return json.dumps(values, indent=1) + "\n"


def recipe_digest(recipe: Recipe) -> str:
    """Returns the SHA-256 of what a recipe learns from.

    It is the same on every machine: files and folders count by their names. Only keys that differ
    from their defaults count, so that a key of a newer version does not change it.
    """
    values = public_recipe(recipe.model_dump(mode="json", exclude_defaults=True))
    flat = {key: v for key, v in flatten(values).items() if not key.startswith(IGNORED)}
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def read_record(content: bytes) -> dict[str, Any] | None:
    """Returns the values of a trainer.json; None if it is not one that a push wrote."""
    try:
        values = parse_json(content.decode())
    except ValueError:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("recipe"), str):
        return None
    return values


def sent_before(record: Mapping[str, Any] | None) -> set[str]:
    """Returns the paths that an earlier push sent, as its record says."""
    sent = (record or {}).get("sent")
    return {path for path in sent if isinstance(path, str)} if isinstance(sent, list) else set()
