"""A recipe in miniature: the whole run in seconds, with a tiny random model and built-in data."""

from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.recipe.reading import RecipeT, validated
from trainer.recipe.schema import Recipe

NUM_ROWS, NUM_STEPS, MAX_SEQ_LENGTH, VOCABULARY = 48, 4, 96, 512
SIZES = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 1024,
}


def smoke(recipe: RecipeT) -> RecipeT:
    """Returns the recipe with a tiny model of the same family, built-in data and few steps.

    A "pretrained" model is written to the cache with random weights, so nothing meaningful is
    learned. Raises ConfigError if the model's family is unknown, or the task has no miniature.
    """
    small = recipe.task.miniature(recipe.data.columns)
    if small is None:
        raise ConfigError(
            f"--smoke has no data for the task {recipe.task.name}",
            key="--smoke",
            value=recipe.task.name,
            hint="leave out --smoke and train on your own rows",
        )
    # Unset keys stay unset, so that an older run in miniature resumes with its own defaults.
    values: dict[str, Any] = {"evaluation": {}, "checkpoint": {}, "tracking": {}}
    values |= recipe.model_dump(mode="json", exclude_unset=True, exclude={"push"})
    values["model"] |= _model(recipe)
    values["task"] = small.settings
    values["data"] = {
        "max_rows": NUM_ROWS,
        "source": {"builtin": small.builtin, "num_rows": NUM_ROWS},
        "columns": small.columns,
    }
    length = min(recipe.batch.max_seq_length, MAX_SEQ_LENGTH)
    values["batch"] = {"global_batch_size": 8, "max_seq_length": length}
    values["schedule"] = {"name": recipe.schedule.name, "steps": NUM_STEPS, "warmup_steps": 1}
    values["evaluation"] |= {"every": NUM_STEPS // 2, "patience": None}
    if values["evaluation"].get("metric") in ("precision", "recall", "f1"):  # need two classes
        values["evaluation"]["metric"] += "_macro"
    values["checkpoint"] |= {"every_steps": NUM_STEPS // 2}
    values["tracking"] |= {"log_every_steps": 1}
    return validated(type(recipe), values, "the miniature")


def _model(recipe: Recipe) -> dict[str, Any]:
    """Returns the model's keys: an architecture if the recipe has one, otherwise a folder."""
    from trainer.models.architecture import shape_config

    kind = shape_config(recipe.model).model_type
    if recipe.model.architecture is not None:
        trained = getattr(recipe.model.tokenizer, "train", "bpe")
        tokenizer = {"train": trained, "vocab_size": VOCABULARY}
        return {"architecture": _numbers(kind), "tokenizer": tokenizer}
    return {"name_or_path": str(_folder(kind)), "revision": None, "tokenizer": None}


def _numbers(kind: str) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING

    known = CONFIG_MAPPING[kind]()
    return {"model_type": kind, **{key: v for key, v in SIZES.items() if hasattr(known, key)}}


def _folder(kind: str) -> Path:
    """Returns a folder with a tiny random model of a family, in place of a pretrained one."""
    from trainer.files.cache import cache_folder, content_key
    from trainer.files.kept_folder import write_once

    key = content_key(kind=kind, numbers=_numbers(kind), vocabulary=VOCABULARY)
    return write_once(cache_folder() / "smoke" / key, lambda folder: _write(kind, folder))


def _write(kind: str, folder: Path) -> None:
    import torch
    import transformers

    from trainer.data.builtin import BUILTIN
    from trainer.models.architecture import build_model_config
    from trainer.models.tokenizers.tokenizer import load_tokenizer, train_tokenizer
    from trainer.recipe.model import Model, TrainedTokenizer

    texts = [str(row["text"]) for row in BUILTIN["reviews"](200, 1)["train"]]
    train_tokenizer(TrainedTokenizer(train="bpe", vocab_size=VOCABULARY), texts, folder)
    settings = Model(architecture=_numbers(kind), initialization="random", tokenizer=str(folder))
    tokenizer = load_tokenizer(settings)
    numbers = build_model_config(settings, tokenizer)
    mappings: tuple[Any, ...] = (
        transformers.MODEL_FOR_PRETRAINING_MAPPING,
        transformers.MODEL_FOR_CAUSAL_LM_MAPPING,
        transformers.MODEL_FOR_MASKED_LM_MAPPING,
    )
    known = [mapping[type(numbers)] for mapping in mappings if type(numbers) in mapping]
    if not known:
        raise ConfigError(
            f"--smoke has no miniature of a {kind}, which is not a language model",
            key="--smoke",
            value=kind,
        )
    torch.manual_seed(0)
    known[0](numbers).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
