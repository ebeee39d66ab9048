"""Rows and a model given as Python objects: written to the cache, in files named by their content.

The recipe then names these files like any others. So ranks, a resumed run and the command line read
the same rows and weights, and other content makes another recipe.
"""

import copy
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trainer.data.sources import rows_digest
from trainer.errors import ConfigError, DataError
from trainer.files.cache import cache_folder, content_key
from trainer.files.kept_folder import write_once
from trainer.models.quiet import quiet_transformers
from trainer.wording import excerpt

if TYPE_CHECKING:
    from datasets import Dataset

TUNED = ("full", "head_only", "lora")
"""Tuning modes for a given model; the others quantise weights while they read them from files."""


def keep_data(data: "Mapping[str, Dataset | Sequence[Mapping[str, Any]]]") -> dict[str, Any]:
    """Writes the rows of each split to the cache, and returns the `data.source` that names them.

    Raises DataError if a value is neither a Dataset nor a list of dicts, or has no rows.
    """
    if "train" not in data:
        raise DataError(
            "data has no train split", key="data", value=list(data), hint="give data['train']"
        )
    return {"files": {name: str(keep_rows(name, rows)) for name, rows in data.items()}}


def keep_rows(name: str, rows: "Dataset | Sequence[Mapping[str, Any]]") -> Path:
    """Writes the rows of the split `name` to the cache, and returns their folder, which
    `datasets.load_from_disk` reads."""
    dataset = as_dataset(name, rows)
    if len(dataset) == 0:
        raise DataError(f"data[{name!r}] has no rows", key=f"data.{name}", hint="give at least one")
    digest = content_key(
        rows=rows_digest(dataset, dataset.column_names), features=str(dataset.features)
    )
    folder = cache_folder() / "given" / f"rows-{digest}"

    def write(staging: Path) -> None:
        dataset.save_to_disk(str(staging))

    return write_once(folder, write)


def as_dataset(name: str, rows: Any) -> "Dataset":
    """Returns a Dataset or a list of dicts as a Dataset; `name` stands for it in errors.

    Raises DataError for anything else, and for columns of mixed types.
    """
    import datasets

    if isinstance(rows, datasets.Dataset):
        return rows.with_format(None)
    if not isinstance(rows, list | tuple) or not all(isinstance(row, Mapping) for row in rows):
        raise DataError(
            f"data[{name!r}] is a {type(rows).__name__}",
            key=f"data.{name}",
            hint="give a datasets.Dataset or a list of dicts",
        )
    try:
        return datasets.Dataset.from_list([dict(row) for row in cast(list[Any], rows)])
    except Exception as error:  # pyarrow has many kinds for columns of mixed types
        raise DataError(
            f"data[{name!r}] cannot be made into columns ({excerpt(error, 200)})",
            key=f"data.{name}",
            hint="give the values of a column one type",
        ) from error


def keep_model(recipe: dict[str, Any], model: Any) -> dict[str, Any]:
    """Writes a model to the cache, and returns the `model` section that names it.

    `recipe` is a mapping. The tokenizer is the one that it names, or else the one at the model's
    own `name_or_path`, or else, for a model built from numbers, what the recipe trains or loads.
    The object itself is neither trained nor changed. Raises ConfigError if the model cannot be
    saved, or if the tuning mode quantises.
    """
    mode = (recipe.get("tuning") or {}).get("mode", "full")
    if mode not in TUNED:
        raise ConfigError(
            f"tuning.mode: {mode} quantises weights while it reads them, and a given model is "
            f"already in memory",
            key="tuning.mode",
            value=mode,
            hint=f"use one of {', '.join(TUNED)}, or name the model in model.name_or_path",
        )
    _check_model(model)
    section = dict(recipe.get("model") or {})
    own = section.get("tokenizer")
    named = own if isinstance(own, str) else None
    tokenizer = named or model.name_or_path or own or section.get("name_or_path")
    if not tokenizer:
        raise ConfigError(
            "model.tokenizer: the given model does not say which tokenizer is its own",
            key="model.tokenizer",
            hint="name a tokenizer in the recipe",
        )
    folder = cache_folder() / "given" / f"model-{_weights_digest(model)}"
    write_once(folder, lambda staging: _save(model, staging))
    for key in ("architecture", "revision"):
        section.pop(key, None)
    given = {"name_or_path": str(folder), "initialization": "pretrained", "tokenizer": tokenizer}
    return {**section, **given}


def _check_model(model: Any) -> None:
    import transformers

    if not isinstance(model, transformers.PreTrainedModel):
        raise ConfigError(
            f"model is a {type(model).__name__}",
            key="model",
            hint="give a transformers model, without adapters or a wrapper around it",
        )
    if getattr(model, "is_quantized", False) or getattr(model, "_hf_peft_config_loaded", False):
        raise ConfigError(
            "model has quantised weights or adapters",
            key="model",
            hint="name its base in model.name_or_path, and tuning.mode: qlora or lora",
        )
    if model.config.model_type not in transformers.CONFIG_MAPPING:
        raise ConfigError(
            f"model is a {model.config.model_type}, which transformers does not know",
            key="model",
            value=model.config.model_type,
            hint="give a model of one of its own families",
        )


def _save(model: Any, folder: Path) -> None:
    before = copy.deepcopy(model.config)
    with quiet_transformers():
        model.save_pretrained(folder)  # also changes class and type in the model's configuration
    model.config = before


def _weights_digest(model: Any) -> str:
    """Returns a hash of a model's class, its configuration, and its weights by name and type."""
    import torch

    numbers = model.config.to_dict()
    for key in ("_name_or_path", "transformers_version", "architectures", "dtype"):
        numbers.pop(key, None)
    numbers["class"] = type(model).__name__
    digest = hashlib.sha256(json.dumps(numbers, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        value = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(memoryview(value.reshape(-1).view(torch.uint8).numpy()))
    return digest.hexdigest()[:32]
