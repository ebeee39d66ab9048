"""What a model is fed: the tokenizer and the encoded splits of a recipe, each made once."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.config import Recipe, TrainedTokenizer
from trainer.data.columns import column_name
from trainer.data.prepare import (
    PreparedSplit,
    Summary,
    cache_folder,
    content_key,
    prepare,
    write_once,
)
from trainer.data.sources import rows_digest
from trainer.errors import DataError
from trainer.models.tokenizer import load_tokenizer, tokenizer_digest, train_tokenizer
from trainer.tasks import task_of
from trainer.tasks.base import Task

if TYPE_CHECKING:
    from datasets import Dataset


def build_tokenizer(recipe: Recipe, train: "Dataset", directory: Path) -> Any:
    """Returns the tokenizer; one that is trained here is kept in the run directory."""
    settings = recipe.model.tokenizer
    if not isinstance(settings, TrainedTokenizer):
        return load_tokenizer(recipe.model)
    kept = directory / "tokenizer"
    if not kept.is_dir():
        key = content_key(
            rows=digest_of_rows(train, recipe),
            task=recipe.task.name,  # it chooses the texts of those columns
            columns=task_of(recipe).columns(recipe),
            tokenizer=settings.model_dump(),
        )
        texts = _TrainTexts(recipe, train)
        trained = write_once(
            cache_folder() / "tokenizers" / key,
            lambda folder: train_tokenizer(settings, texts, folder),
        )
        write_once(kept, lambda folder: _copy(trained, folder))
    model = recipe.model.model_copy(update={"tokenizer": str(kept)})
    return load_tokenizer(model)


@dataclass(frozen=True)
class _TrainTexts:
    """The texts of the train rows, read anew each time: they need not fit into memory."""

    recipe: Recipe
    rows: "Dataset"

    def __iter__(self) -> Iterator[str]:
        return task_of(self.recipe).texts(self.recipe, self.rows)


def prepare_splits(
    rows: "dict[str, Dataset]", task: Task, recipe: Recipe, tokenizer: Any
) -> tuple[dict[str, PreparedSplit], list[str]]:
    """Returns each split tokenised, from the cache where it is there, and notes on them."""
    digest, notes = tokenizer_digest(tokenizer), list[str]()
    bad = recipe.data.on_bad_example
    splits: dict[str, PreparedSplit] = {}
    for name, part in rows.items():
        key = content_key(
            rows=digest_of_rows(part, recipe),
            tokenizer=digest,
            on_bad_example=bad,
            **task.encoding_settings(),
        )
        try:
            made = prepare(key, lambda counted, part=part: task.encode(part, counted), Summary(bad))
        except DataError as error:
            raise DataError(f"the {name} split, {error}") from error
        splits[name] = replace(made, rows=part)
        counted = made.summary
        if counted.num_truncated:
            notes.append(
                f"{counted.num_truncated} {name} examples were truncated; the longest has "
                f"{counted.longest} tokens"
            )
        if counted.num_skipped:
            notes.append(
                f"{counted.num_skipped} bad {name} examples were skipped; the first: "
                f"{counted.first_skipped}"
            )
    return splits, notes


def digest_of_rows(rows: "Dataset", recipe: Recipe) -> str:
    """Returns what changes when the columns that a recipe reads do."""
    columns = task_of(recipe).columns(recipe)
    names = dict.fromkeys(column_name(column) for column in columns.values() if column is not None)
    return rows_digest(rows, list(names))


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)
