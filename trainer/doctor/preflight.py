"""The data of a recipe, prepared as a run prepares them, and what is wrong with them."""

import os
import re
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trainer.doctor.classes import about_classes
from trainer.doctor.finding import Finding, failure, guarded
from trainer.doctor.lengths import about_lengths
from trainer.doctor.offline import without_network
from trainer.doctor.repeats import about_repeats
from trainer.doctor.storage import why_unwritable
from trainer.doctor.targets import about_targets
from trainer.errors import DataError
from trainer.files.cache import cache_folder
from trainer.recipe.schema import Recipe
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from trainer.assembly.inputs import Inputs

CHECKED = re.compile(r"rows also occur in| examples were truncated;|^no train row has the label")
"""Notes of the data that findings of this package replace."""


def about_data(recipe: Recipe, *, readable: bool) -> Iterator[Finding]:
    """Yields what is wrong or unusual about the data of a recipe.

    The prepared data stay in the cache for the run, if it can be written. Nothing is prepared if
    they are not `readable`: something they need is missing.
    """
    if not readable:
        yield Finding("data-not-examined", "note", "the data are examined when nothing is missing")
        return
    with without_network(), caches_that_can_be_written() as unwritable:
        yield from unwritable
        try:
            inputs = _inputs(recipe)
        except DataError as error:
            if recipe.data.on_bad_example == "skip":
                raise
            settings = recipe.data.model_copy(update={"on_bad_example": "skip"})
            inputs = _inputs(recipe.model_copy(update={"data": settings}))
            yield _bad_rows(error, inputs)
        for note in inputs.notes:
            if not CHECKED.search(note):
                yield Finding("note-on-data", "note", excerpt(note, 300))
        for check in (
            lambda: about_targets(inputs),
            lambda: about_repeats(recipe, inputs),
            lambda: about_classes(inputs),
            lambda: about_lengths(recipe, inputs),
        ):
            yield from guarded(check)


@contextmanager
def caches_that_can_be_written() -> Generator[list[Finding]]:
    """Context manager: caches that cannot be written are replaced by temporary ones, as long as
    the data are examined; yields the findings on them."""
    from datasets import config

    places: dict[str, Path] = {
        "TRAINER_CACHE": cache_folder(),
        "HF_DATASETS_CACHE": Path(config.HF_DATASETS_CACHE),
    }
    problems = {name: why_unwritable(folder)[0] for name, folder in places.items()}
    findings = [
        Finding(
            "unwritable-cache",
            "failure",
            f"a run cannot write its cache {places[name]}: {problem}",
            f"set {name} to a folder that can be written",
            {"folder": str(places[name])},
        )
        for name, problem in problems.items()
        if problem is not None
    ]
    if not findings:
        yield findings
        return
    library: Any = config
    before = os.environ.get("TRAINER_CACHE"), library.HF_DATASETS_CACHE
    with TemporaryDirectory(prefix="trainer-doctor-") as folder:
        os.environ["TRAINER_CACHE"] = f"{folder}/trainer"
        if problems["HF_DATASETS_CACHE"] is not None:
            library.HF_DATASETS_CACHE = Path(folder) / "datasets"
        try:
            yield findings
        finally:
            library.HF_DATASETS_CACHE = before[1]
            if before[0] is None:
                del os.environ["TRAINER_CACHE"]
            else:
                os.environ["TRAINER_CACHE"] = before[0]


def _inputs(recipe: Recipe) -> "Inputs":
    from trainer.assembly.inputs import build_inputs

    return build_inputs(recipe, None)


def _bad_rows(error: DataError, inputs: "Inputs") -> Finding:
    """Returns the finding on the first bad row, with the number of all."""
    counts = {
        name: split.summary.num_skipped
        for name, split in inputs.splits.items()
        if split.summary.num_skipped
    }
    first = failure("bad-rows", error)
    total = listed(f"{count:,} {name}" for name, count in counts.items())
    message = f"{first.message} (rows that cannot be used: {total})" if counts else first.message
    return Finding(first.code, first.level, message, first.advice, counts)
