"""Offline: fills the caches with everything that a run would fetch or tokenise."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from trainer.assembly.deciding_metric import check_mode
from trainer.assembly.inputs import Inputs, build_inputs
from trainer.assembly.memory_advice import recipe_memory
from trainer.data.encoded import PreparedSplit
from trainer.files.cache import cache_folder
from trainer.models.load import ModelSpec, fetch_model
from trainer.models.tokenizers.tokenizer import num_rows
from trainer.recipe.model import Model, TrainedTokenizer
from trainer.recipe.schema import Recipe


def fill_caches(recipe: Recipe) -> Iterator[str]:
    """Fetches model, tokenizer and data of a recipe, tokenises all splits, and yields a line on
    each.

    It needs no GPU and never holds the weights in memory. Afterwards the run needs no network.
    Raises ConfigError and DataError as that run would.
    """
    check_mode(recipe)
    with recipe_memory(recipe, "data", "preparing the data"):
        inputs = build_inputs(recipe, None)
    yield _line("tokenizer", _tokenizer(recipe.model, len(inputs.tokenizer)))
    for name, split in inputs.splits.items():
        yield _line(name, _split(split))
    yield from (_line("note", note) for note in inputs.notes)
    if recipe.model.initialization == "pretrained":
        yield from (_line("note", note) for note in fetch_weights(recipe, inputs))
    yield _line("model", _model(recipe.model))
    yield from (_line("cache", place) for place in _caches())


def fetch_weights(recipe: Recipe, inputs: Inputs) -> list[str]:
    """Fetches the files of each model that the run will load, and returns notes about them.

    Raises ConfigError if names or shapes of the weights do not fit the model.
    """
    notes: list[str] = []
    kinds = [inputs.task.auto_model]
    if inputs.task.zero_shot is not None:
        kinds.append("AutoModelForCausalLM")  # which also reads generation_config.json
    for kind in kinds:
        spec = ModelSpec(
            recipe.model,
            inputs.model_config,
            auto_model=kind,
            tokenizer_size=num_rows(inputs.tokenizer),
            mode="full",  # quantised weights are made from the same files
            frozen_dtype=torch.float32,
            seed=recipe.seed,
        )
        notes += fetch_model(spec).notes
    return notes


def _line(name: str, text: str) -> str:
    return f"{name:<11} {text}"


def _tokenizer(model: Model, size: int) -> str:
    settings = model.tokenizer
    if isinstance(settings, TrainedTokenizer):
        return f"{settings.train} of {size:,} tokens, trained on the train split"
    return f"{settings or model.name_or_path}, {size:,} tokens"


def _split(split: PreparedSplit) -> str:
    return f"{len(split.rows):,} rows, {len(split):,} examples of {split.lengths.sum():,} tokens"


def _model(model: Model) -> str:
    if model.architecture is not None:
        return "random, from the numbers in the recipe; nothing to fetch"
    name = str(model.name_or_path)
    if Path(name).is_dir():
        return f"the folder {name}; nothing to fetch"
    files = _cached(name, model.revision)
    size = sum(file.stat().st_size for file in files)
    weights = ", without weights, which are random" * (model.initialization == "random")
    return f"{name}, {size:,} bytes in {len(files)} files{weights}"


def _cached(name: str, revision: str | None) -> list[Path]:
    """Returns the cached files of a hub model."""
    from huggingface_hub import try_to_load_from_cache

    for file_name in ("config.json", "tokenizer_config.json"):
        file: Any = try_to_load_from_cache(name, file_name, revision=revision)
        if isinstance(file, str):
            return [path for path in Path(file).parent.rglob("*") if path.is_file()]
    return []


def _caches() -> list[str]:
    from datasets.config import HF_DATASETS_CACHE
    from huggingface_hub.constants import HF_HUB_CACHE

    return [
        f"{HF_HUB_CACHE} (files from the hub; HF_HOME moves it)",
        f"{HF_DATASETS_CACHE} (rows from the hub; HF_HOME moves it)",
        f"{cache_folder()} (rows from files, tokenizers, tokenised rows; TRAINER_CACHE moves it)",
    ]
