"""Errors for a hub name or folder from which transformers could not load what it should."""

from pathlib import Path
from pickle import UnpicklingError

from trainer.errors import ConfigError
from trainer.models.pretrained.model_folder import other_format, shown
from trainer.wording import reason_of


def not_loaded(key: str, name: str, part: str, error: Exception) -> ConfigError:
    """Returns the error for a `part`, such as weights, that could not be loaded from `name`.

    `key` is the recipe key that gives the name, and `error` what transformers raised.
    """
    if "trust_remote_code" in str(error):
        return ConfigError(
            f"{key}: {shown(name)} brings its own code for its {part} (auto_map), which is never "
            f"run, and transformers has no class for it",
            key=key,
            value=name,
            hint="name a model of a type that transformers has",
        )
    if Path(name).is_dir():
        format_and_hint = other_format(Path(name)) if part == "weights" else None
        reason, hint = format_and_hint or (_reason(error), None)
        return ConfigError(
            f"{key}: the folder {shown(name)} has no {part} that can be loaded: {reason}",
            key=key,
            value=name,
            hint=hint,
        )
    if Path(name).name == "model":
        run = Path(name).parent
        return ConfigError(
            f"{key}: {name} does not exist; the run {run} writes it when it finishes",
            key=key,
            value=name,
            hint="train it first",
        )
    if isinstance(error, OSError) and error.errno is not None:  # the machine's, not the hub's
        return ConfigError(
            f"{key}: the {part} of {name} cannot be stored: {error.strerror}",
            key=key,
            value=name,
            hint="fix that, or set HF_HOME to another folder",
        )
    return ConfigError(
        f"{key}: no {part} of {name}: it is not a local folder, it is not in the cache, and the "
        f"hub did not provide it",
        key=key,
        value=name,
        hint="check the name and your access to it, or run `trainer prepare RECIPE` on a machine "
        "that can reach the hub",
    )


def _reason(error: Exception) -> str:
    """Returns, shortened, what a library says about a file that it cannot read."""
    if isinstance(error, UnpicklingError):  # whose message advises to run what the file contains
        return "the file is not a list of tensors, and nothing else in it is run"
    return reason_of(error, 160)
