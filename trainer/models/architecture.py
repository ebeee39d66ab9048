"""The shape of a model: the numbers of a recipe, of a name or folder, or those that are shipped."""

import difflib
import json
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import check_config, check_origin
from trainer.models.pretrained.not_loaded import not_loaded
from trainer.models.tokenizers.own_tokens import check_vocabulary
from trainer.models.tokenizers.tokenizer import ensure_pad_token, load_tokenizer
from trainer.recipe import schema
from trainer.recipe.reading import load_recipe
from trainer.recipe.shipped import shipped_recipes
from trainer.wording import excerpt

FOLDER = Path(__file__).parent / "architectures"
"""Published numbers by hub name, with -- for the slash."""
MAX_LAYERS, MAX_NUMBER = 10_000, 2**31 - 1
"""Of an architecture. More layers take minutes to describe and no machine to hold."""


def build_model_config(model: schema.Model, tokenizer: Any) -> Any:
    """Returns the transformers configuration, with a padding token.

    Raises ConfigError for what is missing or unknown in it.
    """
    if model.architecture is not None:
        ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id")}
        ensure_pad_token(tokenizer, len(tokenizer) + 1)
        made = _from_numbers(model.architecture, {"vocab_size": len(tokenizer), **ids})
    else:
        published = _published(model) if model.initialization == "random" else None
        made = stored_config(model) if published is None else _from_numbers(published)
    vars(made).pop("auto_map", None)  # else the exported model would ask for code that is not run
    rows, known_pad = made.vocab_size, made.pad_token_id
    ensure_pad_token(tokenizer, rows, known_pad=known_pad, kind=model.pad_token)
    check_vocabulary(model, tokenizer, rows)
    made.pad_token_id = tokenizer.pad_token_id
    types = ["token_type_ids"] if getattr(made, "type_vocab_size", 0) > 1 else []
    tokenizer.model_input_names = ["input_ids", *types, "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # else not exported
    return made


def shape_config(model: schema.Model) -> Any:
    """Returns the transformers configuration from as little as there is: no weights, and where
    numbers are shipped or stand in the recipe, no download.

    The vocabulary of a tokenizer that is yet to be trained has the size that the recipe asks for.
    An earlier run of a shipped recipe that has not been made has the shape of that recipe.
    """
    if model.architecture is not None:
        if isinstance(model.tokenizer, schema.TrainedTokenizer):
            size = model.tokenizer.vocab_size
        elif "vocab_size" not in model.architecture:
            tokenizer = load_tokenizer(model)
            ensure_pad_token(tokenizer, len(tokenizer) + 1)
            size = len(tokenizer)
        else:
            size = None
        # Nobody knows the padding token of a tokenizer that is not there; defaults may lie outside.
        return _from_numbers(model.architecture, {"vocab_size": size, "pad_token_id": None})
    published = _published(model)
    if published is not None:
        return _from_numbers(published)
    check_origin(model)
    recipe = recipe_of_run(model)
    return stored_config(model) if recipe is None else shape_config(load_recipe(recipe).model)


def recipe_of_run(model: schema.Model) -> str | None:
    """Returns the shipped recipe whose run makes this model, where that run has yet to be made."""
    path = Path(model.name_or_path or "")
    made = path.name == "model" and not path.is_dir()
    return path.parent.name if made and path.parent.name in shipped_recipes() else None


def _published(model: schema.Model) -> dict[str, Any] | None:
    name = str(model.name_or_path)
    file = FOLDER / f"{name.replace('/', '--')}.json"
    if Path(name).is_dir() or not file.is_file():
        return None
    return json.loads(file.read_text("utf-8"))


def stored_config(model: schema.Model) -> Any:
    """Returns the configuration that stands under model.name_or_path, as it was written."""
    from transformers import AutoConfig

    name = str(model.name_or_path)
    try:
        made = AutoConfig.from_pretrained(name, revision=model.revision, trust_remote_code=False)
    except MemoryError:
        raise
    except Exception as error:  # whatever a damaged file makes a class of transformers stumble over
        raise not_loaded("model.name_or_path", name, "configuration", error) from error
    check_config(made, "model.name_or_path")
    return made


def _from_numbers(numbers: dict[str, Any], others: dict[str, Any] | None = None) -> Any:
    """Returns the configuration with `numbers`, and `others` where those say nothing."""
    from transformers import CONFIG_MAPPING

    numbers = dict(numbers)
    kind = str(numbers.pop("model_type"))
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind[:100], list(CONFIG_MAPPING), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"model.architecture.model_type: there is no {excerpt(kind)}{hint}")
    known = CONFIG_MAPPING[kind]()
    for name, value in numbers.items():
        if not hasattr(known, name):
            near = difflib.get_close_matches(name[:100], list(vars(known)), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"model.architecture.{excerpt(name)}: a {kind} has no such number{hint}"
            )
        most = MAX_LAYERS if "layers" in name else MAX_NUMBER
        if isinstance(value, int) and abs(value) > most:
            raise ConfigError(f"model.architecture.{name}: {excerpt(value)} is more than {most:,}")
    try:
        made = CONFIG_MAPPING[kind](**{**(others or {}), **numbers})
    except Exception as error:  # each family checks its numbers in its own way, or not at all
        reason = excerpt(" ".join(str(error).split()), 200)
        raise ConfigError(f"model.architecture: {reason or type(error).__name__}") from error
    check_config(made, "model.architecture")
    return made
