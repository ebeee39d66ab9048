"""The data of a recipe, prepared as a run prepares them, and what is wrong with them."""

import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from trainer.doctor.classes import about_classes
from trainer.doctor.finding import Finding, Level, failure, guarded
from trainer.doctor.lengths import about_lengths
from trainer.doctor.offline import without_network
from trainer.doctor.repeats import about_repeats
from trainer.doctor.storage import why_unwritable
from trainer.doctor.targets import about_targets
from trainer.errors import DataError, TrainerError
from trainer.files.cache import cache_folder
from trainer.process.switches import restored_environment
from trainer.recipe.schema import Recipe
from trainer.wording import excerpt, listed

if TYPE_CHECKING:
    from trainer.assembly.inputs import Inputs

CHECKED = re.compile(r"rows also occur in| examples were truncated;|^no train row has the label")
"""Notes of the data that findings of this package replace."""


def about_data(recipe: Recipe, *, readable: bool) -> Iterator[Finding]:
    """Yields what is wrong or unusual about the data of a recipe.

    The prepared data stay in the cache for the run; if a cache lacks some and cannot be written,
    they are prepared in a temporary folder. Nothing is prepared if they are not `readable`:
    something they need is missing.
    """
    if not readable:
        yield Finding("data-not-examined", "note", "the data are examined when nothing is missing")
        return
    with ExitStack() as stack:
        stack.enter_context(without_network())
        unwritable = unwritable_caches()
        try:
            inputs, bad_rows = _prepared(recipe)
        except (TrainerError, OSError):
            if not unwritable:
                raise
            yield from _read_only(unwritable, "failure")
            stack.enter_context(temporary_caches(unwritable))
            inputs, bad_rows = _prepared(recipe)
        else:
            yield from _read_only(unwritable, "note")
        yield from bad_rows
        rows = ", ".join(
            f"{len(split.rows):,} {name} rows as {len(split):,} examples"
            for name, split in inputs.splits.items()
        )
        yield Finding("examples", "fine", rows)
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


def unwritable_caches() -> dict[str, str]:
    """Returns the caches that cannot be written, by the variables that move them, and why."""
    from datasets import config

    places = {"TRAINER_CACHE": cache_folder(), "HF_DATASETS_CACHE": Path(config.HF_DATASETS_CACHE)}
    problems = {name: (folder, why_unwritable(folder)[0]) for name, folder in places.items()}
    return {name: f"{folder}: {why}" for name, (folder, why) in problems.items() if why}


@contextmanager
def temporary_caches(names: Iterable[str]) -> Generator[None]:
    """Context manager: the caches of `unwritable_caches` are empty temporary folders."""
    from datasets import config

    library: Any = config
    with restored_environment(), TemporaryDirectory(prefix="trainer-doctor-") as folder:
        before = library.HF_DATASETS_CACHE
        if "TRAINER_CACHE" in names:
            os.environ["TRAINER_CACHE"] = f"{folder}/trainer"
        if "HF_DATASETS_CACHE" in names:
            library.HF_DATASETS_CACHE = Path(folder) / "datasets"
        try:
            yield
        finally:
            library.HF_DATASETS_CACHE = before


def _read_only(unwritable: Mapping[str, str], level: Level) -> Iterator[Finding]:
    for name, problem in unwritable.items():
        if level == "note":
            message = f"this run finds what it needs in a cache that cannot be written, {problem}"
            yield Finding("read-only-cache", level, message)
        else:
            message = f"a run cannot write its cache {problem}"
            advice = f"set {name} to a folder that can be written"
            yield Finding("unwritable-cache", level, message, advice)


def _prepared(recipe: Recipe) -> "tuple[Inputs, list[Finding]]":
    """Returns the inputs of a run, without rows that cannot be used, and the finding on these."""
    try:
        return _inputs(recipe), []
    except DataError as error:
        if recipe.data.on_bad_example == "skip":
            raise
        settings = recipe.data.model_copy(update={"on_bad_example": "skip"})
        inputs = _inputs(recipe.model_copy(update={"data": settings}))
        return inputs, [_bad_rows(error, inputs)]


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
