"""Provenance: the rows, tokens and recipe of a checkpoint, compared before it is used again."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from trainer.data.encoded import PreparedSplit
from trainer.errors import CheckpointError
from trainer.process.continuation import LENGTH, PATIENCE
from trainer.process.run_directory import MAY_DIFFER
from trainer.recipe.keys import flatten
from trainer.recipe.schema import Recipe
from trainer.wording import excerpt

MAY_MOVE = ("data.source.", "model.name_or_path", "model.revision", "model.tokenizer")
"""Keys that name places; what is read from there is compared by its content instead."""


def provenance_of(recipe: Recipe, splits: Mapping[str, PreparedSplit]) -> dict[str, Any]:
    """Returns hashes of the rows and tokens of each split (`digests`), and the `recipe` by key."""
    digests = {name: dict(split.digests) for name, split in splits.items()}
    return {"digests": digests, "recipe": flatten(recipe.model_dump(mode="json"))}


def check_provenance(
    checkpoint: Path,
    record: Mapping[str, Any],
    recipe: Recipe,
    splits: Mapping[str, PreparedSplit],
    used: Iterable[str],
) -> None:
    """Raises CheckpointError if the recipe or one of the `used` splits has changed since the
    checkpoint was written.

    What `record` lacks, because an older version wrote it, is not compared.
    """
    now = provenance_of(recipe, splits)
    may_differ = (*MAY_DIFFER, *MAY_MOVE, *LENGTH, PATIENCE)
    for key, value in now["recipe"].items():
        old = record["recipe"].get(key, value)
        if old != value and not key.startswith(may_differ):
            raise CheckpointError(
                f"{checkpoint} was made with {key}={excerpt(repr(old), 60)}, but config.yaml of "
                f"its run says {excerpt(repr(value), 60)}",
                key=key,
                value=value,
                hint="restore that file",
            )
    for split in used:
        old, new = record["digests"].get(split), now["digests"].get(split, {})
        if not isinstance(old, dict):
            continue
        for part, cause in (("rows", "the data or its splits"), ("tokens", "the tokenizer")):
            if old.get(part, new.get(part)) != new.get(part):
                raise CheckpointError(
                    f"the {part} of the {split} split are not those that {checkpoint} was made "
                    f"with: {cause} changed",
                    key=split,
                    value=part,
                    hint="give the run the same data and tokenizer, or choose another --run-dir",
                )
