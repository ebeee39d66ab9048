"""The shape of a model: from numbers in a recipe, a hub name or folder, or shipped numbers."""

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
from trainer.wording import excerpt

FOLDER = Path(__file__).parent / "architectures"
"""Published numbers by hub name, with -- for the slash."""
MAX_LAYERS, MAX_NUMBER = 10_000, 2**31 - 1
"""Limits of an architecture. More layers take minutes to describe, and no machine holds them."""


def build_model_config(model: Model, tokenizer: Any) -> Any:
    """Returns the transformers configuration of a model, with a padding token.

    Gives `tokenizer` a padding token if it has none. Raises ConfigError for numbers that are
    missing or unknown.
    """
    if model.architecture is not None:
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
        ensure_pad_token(tokenizer, len(tokenizer) + 1)
        made = _from_numbers(model.architecture, {"vocab_size": len(tokenizer), **ids})
    else:
        published = _published(model) if model.initialization == "random" else None
        made = stored_config(model) if published is None else _from_numbers(published)
    vars(made).pop("auto_map", None)  # or the exported model would ask for code of its own
    rows, known_pad = made.vocab_size, made.pad_token_id
    ensure_pad_token(tokenizer, rows, known_pad=known_pad, kind=model.pad_token)
    check_vocabulary(model, tokenizer, rows)
    made.pad_token_id = tokenizer.pad_token_id
    types = ["token_type_ids"] if getattr(made, "type_vocab_size", 0) > 1 else []
    tokenizer.model_input_names = ["input_ids", *types, "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = (
        tokenizer.model_input_names
    )  # or it is not exported
    return made


def shape_config(model: Model) -> Any:
    """Returns the transformers configuration without reading weights.

    Downloads nothing if the numbers are shipped or in the recipe. A tokenizer that is yet to be
    trained has the vocabulary size of the recipe, and the model of a run that is yet to be trained
    has the shape in that run's shipped recipe.
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
        # Without a tokenizer its padding token is unknown, and the default may lie outside.
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
    """Returns the shipped recipe whose run makes this model, if that run is yet to be trained."""
    path = Path(model.name_or_path or "")
    made = path.name == "model" and not path.is_dir()
    return path.parent.name if made and path.parent.name in shipped_recipes() else None


def _published(model: Model) -> dict[str, Any] | None:
    name = str(model.name_or_path)
    file = FOLDER / f"{name.replace('/', '--')}.json"
    if Path(name).is_dir() or not file.is_file():
        return None
    return json.loads(file.read_text("utf-8"))


def stored_config(model: Model) -> Any:
    """Returns the configuration at model.name_or_path as it was written.

    Raises ConfigError if there is none that transformers can read.
    """
    from transformers import AutoConfig

    name = str(model.name_or_path)
    try:
        made = AutoConfig.from_pretrained(name, revision=model.revision, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can fail anywhere in transformers
        raise not_loaded("model.name_or_path", name, "configuration", error) from error
    check_config(made, "model.name_or_path")
    return made


def _from_numbers(numbers: dict[str, Any], others: dict[str, Any] | None = None) -> Any:
    """Returns the configuration with `numbers`, and `others` for what they leave out."""
    from transformers import CONFIG_MAPPING

    numbers = dict(numbers)
    kind = str(numbers.pop("model_type"))
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind[:100], list(CONFIG_MAPPING), n=1)
        raise ConfigError(
            f"model.architecture.model_type: there is no {excerpt(kind)}",
            key="model.architecture.model_type",
            value=kind,
            hint=f"did you mean {near[0]}?" if near else None,
        )
    known = CONFIG_MAPPING[kind]()
    for name, value in numbers.items():
        if not hasattr(known, name):
            near = difflib.get_close_matches(name[:100], list(vars(known)), n=1)
            raise ConfigError(
                f"model.architecture.{excerpt(name)}: a {kind} has no such number",
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
        made = CONFIG_MAPPING[kind](**{**(others or {}), **numbers})
    except Exception as error:  # each family checks its numbers in its own way, or not at all
        reason = excerpt(" ".join(str(error).split()), 200)
        raise ConfigError(
            f"model.architecture: {reason or type(error).__name__}", key="model.architecture"
        ) from error
    check_config(made, "model.architecture")
    return made
