"""Model configurations: from numbers in the recipe, shipped numbers, a folder or the hub."""

import difflib
import json
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import check_config, check_origin
from trainer.models.pretrained.not_loaded import not_loaded
from trainer.models.tokenizers.own_tokens import check_vocabulary
from trainer.models.tokenizers.tokenizer import ensure_pad_token, load_tokenizer
from trainer.recipe.model import Model, TrainedTokenizer
from trainer.recipe.reading import recipe_values
from trainer.recipe.shipped import shipped_recipes
from trainer.wording import excerpt, reason_of

FOLDER = Path(__file__).parent / "architectures"
"""Numbers of published models, in a file for each hub name, with -- in place of the slash."""
MAX_LAYERS, MAX_NUMBER = 10_000, 2**31 - 1
"""Limits of the numbers of an architecture. A model of more layers takes minutes to build even on
the meta device."""


def build_model_config(model: Model, tokenizer: Any) -> Any:
    """Returns the transformers configuration of a model, with the tokenizer's padding token.

    Changes `tokenizer`: it gets a padding token if it has none, and the input names of the model.
    Raises ConfigError for numbers that are unknown or out of range, and for a tokenizer that does
    not fit the model.
    """
    if model.architecture is not None:
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
        ensure_pad_token(tokenizer, len(tokenizer) + 1)
        config = _from_numbers(model.architecture, {"vocab_size": len(tokenizer), **ids})
    else:
        published = _published(model) if model.initialization == "random" else None
        config = stored_config(model) if published is None else _from_numbers(published)
    # Otherwise the exported model would name code that is not exported.
    vars(config).pop("auto_map", None)
    rows, known_pad = config.vocab_size, config.pad_token_id
    ensure_pad_token(tokenizer, rows, known_pad=known_pad, kind=model.pad_token)
    check_vocabulary(model, tokenizer, rows)
    config.pad_token_id = tokenizer.pad_token_id
    types = ["token_type_ids"] if getattr(config, "type_vocab_size", 0) > 1 else []
    names = ["input_ids", *types, "attention_mask"]
    tokenizer.model_input_names = names
    tokenizer.init_kwargs["model_input_names"] = names  # the names that are exported
    return config


def shape_config(model: Model) -> Any:
    """Returns the transformers configuration of a model without reading weights.

    Downloads nothing if the numbers are shipped or in the recipe. Until a tokenizer is trained, its
    vocabulary size is that of the recipe; until a shipped recipe is trained, the shape of its
    model/ is that of the recipe.
    """
    if model.architecture is not None:
        if isinstance(model.tokenizer, TrainedTokenizer):
            size = model.tokenizer.vocab_size
        elif "vocab_size" not in model.architecture:
            tokenizer = load_tokenizer(model)
            ensure_pad_token(tokenizer, len(tokenizer) + 1)
            size = len(tokenizer)
        else:
            size = None
        # The padding token is that of the tokenizer; the default could exceed the vocabulary.
        return _from_numbers(model.architecture, {"vocab_size": size, "pad_token_id": None})
    published = _published(model)
    if published is not None:
        return _from_numbers(published)
    check_origin(model)
    recipe = recipe_of_run(model)
    if recipe is None:
        return stored_config(model)
    return shape_config(Model(**recipe_values(recipe)["model"]))


def recipe_of_run(model: Model) -> str | None:
    """Returns the name of the shipped recipe whose run writes this model, None if the model exists
    or no shipped recipe does."""
    path = Path(model.name_or_path or "")
    if path.name != "model" or path.is_dir():
        return None
    return path.parent.name if path.parent.name in shipped_recipes() else None


def _published(model: Model) -> dict[str, Any] | None:
    name = str(model.name_or_path)
    file = FOLDER / f"{name.replace('/', '--')}.json"
    if Path(name).is_dir() or not file.is_file():
        return None
    return json.loads(file.read_text("utf-8"))


def stored_config(model: Model) -> Any:
    """Returns the unchanged configuration at model.name_or_path.

    Raises ConfigError if transformers cannot read it, or if it would fetch or run code.
    """
    from transformers import AutoConfig

    name = str(model.name_or_path)
    try:
        config = AutoConfig.from_pretrained(name, revision=model.revision, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything
        raise not_loaded("model.name_or_path", name, "configuration", error) from error
    check_config(config, "model.name_or_path")
    return config


def _from_numbers(numbers: dict[str, Any], defaults: dict[str, Any] | None = None) -> Any:
    """Returns the configuration of `numbers`, with `defaults` for numbers that are not given."""
    from transformers import CONFIG_MAPPING

    numbers = dict(numbers)
    kind = str(numbers.pop("model_type"))
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind[:100], list(CONFIG_MAPPING), n=1)
        raise ConfigError(
            f"model.architecture.model_type: transformers has no {excerpt(kind)}",
            key="model.architecture.model_type",
            value=kind,
            hint=f"did you mean {near[0]}?" if near else None,
        )
    default = CONFIG_MAPPING[kind]()
    for name, value in numbers.items():
        if not hasattr(default, name):
            near = difflib.get_close_matches(name[:100], list(vars(default)), n=1)
            raise ConfigError(
                f"model.architecture.{excerpt(name)}: unknown in the configuration of a {kind}",
                key=f"model.architecture.{name}",
                value=value,
                hint=f"did you mean {near[0]}?" if near else None,
            )
        most = MAX_LAYERS if "layers" in name else MAX_NUMBER
        if isinstance(value, int) and abs(value) > most:
            raise ConfigError(
                f"model.architecture.{name}: {excerpt(value)} is more than {most:,}",
                key=f"model.architecture.{name}",
                value=value,
                hint=f"use {most:,} or less",
            )
    try:
        config = CONFIG_MAPPING[kind](**{**(defaults or {}), **numbers})
    except Exception as error:  # each family checks its numbers in its own way, or not at all
        raise ConfigError(
            f"model.architecture: {reason_of(error)}",
            key="model.architecture",
            value=numbers,
        ) from error
    check_config(config, "model.architecture")
    return config
