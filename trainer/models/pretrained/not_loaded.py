"""Why a hub name or a folder gave no tokenizer, configuration or weights."""

from pathlib import Path
from pickle import UnpicklingError

from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import other_format, shown
from trainer.wording import excerpt


def not_loaded(key: str, name: str, what: str, error: Exception) -> ConfigError:
    """Returns the error for `what`, such as weights, that transformers could not load from `name`.

    `key` is the dotted key of the recipe that names it, `error` what transformers raised.
    """
    if "trust_remote_code" in str(error):
        return ConfigError(
            f"{key}: {shown(name)} brings its own code for its {what} (auto_map), which is never "
            f"run here, and transformers has no class for it",
            key=key,
            value=name,
            hint="name a model of a type that transformers has",
        )
    if Path(name).is_dir():
        clause = other_format(Path(name)) if what == "weights" else ""
        clause = clause or f": {_reason(error)}"
        return ConfigError(
            f"{key}: the folder {shown(name)} holds no {what} that can be loaded{clause}",
            key=key,
            value=name,
        )
    if Path(name).name == "model":
        run = Path(name).parent
        return ConfigError(
            f"{key}: there is no {name}, which the run {run} leaves when it ends",
            key=key,
            value=name,
            hint="train it first",
        )
    if isinstance(error, OSError) and error.errno is not None:  # the machine's, not the hub's
        return ConfigError(
            f"{key}: the {what} of {name} cannot be kept: {error.strerror}",
            key=key,
            value=name,
            hint="fix that, or set HF_HOME to another folder",
        )
    return ConfigError(
        f"{key}: no {what} of {name}: it is not a folder here, is not in the cache, and the hub "
        f"did not give it",
        key=key,
        value=name,
        hint="check the name and the access to it, or run `trainer prepare RECIPE` where the hub "
        "can be reached",
    )


def _reason(error: Exception) -> str:
    """Returns what a library says about a file that it cannot read, in short."""
    if isinstance(error, UnpicklingError):  # whose advice is to run what the file holds
        return "its file is not a list of tensors, and nothing else is run"
    text = " ".join(str(error).split())
    return excerpt(text or type(error).__name__, 160)
