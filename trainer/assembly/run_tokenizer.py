"""The tokenizer of a run: loaded, or trained once on its train rows and kept."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.assembly.columns_read import digest_of_rows
from trainer.files.cache import cache_folder, content_key
from trainer.files.kept_folder import write_once
from trainer.models.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from trainer.recipe.model import TrainedTokenizer
from trainer.recipe.schema import Recipe
from trainer.tasks import task_of

if TYPE_CHECKING:
    from datasets import Dataset


def build_tokenizer(recipe: Recipe, train: "Dataset", directory: Path | None) -> Any:
    """Returns the tokenizer of a recipe.

    A tokenizer that the run trains is kept in the cache and in the run directory, if one is given.
    """
    settings = recipe.model.tokenizer
    if not isinstance(settings, TrainedTokenizer):
        return load_tokenizer(recipe.model)

    def in_cache() -> Path:
        key = content_key(
            rows=digest_of_rows(train, recipe),
            task=recipe.task.name,  # which chooses the texts to train on
            columns=task_of(recipe).columns(recipe),
            tokenizer=settings.model_dump(),
        )
        texts = _TrainTexts(recipe, train)
        return write_once(
            cache_folder() / "tokenizers" / key,
            lambda folder: train_tokenizer(settings, texts, folder),
        )

    def copy(folder: Path) -> None:
        shutil.copytree(in_cache(), folder, dirs_exist_ok=True)

    if directory is None:
        folder = in_cache()
    else:  # older versions wrote no manifest there
        folder = write_once(directory / "tokenizer", copy, accept_unlisted=True)
    return load_tokenizer(recipe.model.model_copy(update={"tokenizer": str(folder)}))


@dataclass(frozen=True)
class _TrainTexts:
    """The texts of the train rows, read again in each pass, so they need not fit into memory."""

    recipe: Recipe
    rows: "Dataset"

    def __iter__(self) -> Iterator[str]:
        return task_of(self.recipe).texts(self.recipe, self.rows)
