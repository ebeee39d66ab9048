"""What a recipe needs before its first step: data, tokenizer, configuration and weights."""

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from trainer.doctor.finding import Finding, failure
from trainer.doctor.offline import is_offline, without_network
from trainer.errors import ConfigError, DataError, TrainerError
from trainer.recipe.model import Model, TrainedTokenizer
from trainer.recipe.schema import Recipe
from trainer.wording import excerpt, format_bytes

HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+){0,2}")  # of a data set with its subset, three parts
UNREADABLE = ("missing-data", "missing-tokenizer", "missing-configuration")
"""Codes of findings without which the data cannot be prepared."""


def about_needs(recipe: Recipe, name: str) -> Iterator[Finding]:
    """Yields whether each thing that a recipe needs lies in a folder or in the caches.

    What a hub name lacks is a failure offline, and otherwise a note, as a run fetches it. `name` is
    what names the recipe on a command line.
    """
    model = recipe.model
    models_offline, rows_offline = is_offline()
    hub = recipe.data.source.hub
    checks: list[tuple[str, str | None, bool, Callable[[], str]]] = [
        ("data", _on_hub(hub), rows_offline, lambda: _data(recipe)),
        ("tokenizer", _on_hub(_tokenizer_name(model)), models_offline, lambda: _tokenizer(model)),
        ("configuration", _on_hub(model.name_or_path), models_offline, lambda: _shape(model)),
    ]
    if model.initialization == "pretrained":
        on_hub = _on_hub(model.name_or_path)
        checks.append(("weights", on_hub, models_offline, lambda: _weights(model)))
    with without_network():
        for what, hub_name, offline, check in checks:
            try:
                yield Finding(what, "fine", f"{what}: {check()}")
            except TrainerError as error:
                if hub_name is None:
                    yield failure(f"missing-{what}", error)
                else:
                    yield _not_cached(what, hub_name, name, offline=offline)


def _not_cached(what: str, hub_name: str, recipe: str, *, offline: bool) -> Finding:
    message = f"{what}: not all of {excerpt(hub_name, 100)} is in the caches"
    prepare = f"`trainer prepare {excerpt(recipe, 200)}`"
    figures = {"name": hub_name}
    if offline:
        return Finding(
            f"missing-{what}",
            "failure",
            f"{message}, and nothing is fetched offline",
            f"run {prepare} on a machine that reaches the hub, with the same HF_HOME",
            figures,
        )
    advice = f"{prepare} fetches it before the run, which otherwise fetches it at its start"
    return Finding(f"missing-{what}", "note", message, advice, figures)


def _on_hub(name: str | None) -> str | None:
    """Returns a name if it is one of the hub, None for a folder or a name of another kind."""
    if name is None or Path(name).is_dir() or Path(name).name == "model":
        return None
    return name if HUB_NAME.fullmatch(name) else None


def _tokenizer_name(model: Model) -> str | None:
    settings = model.tokenizer or model.name_or_path
    return None if isinstance(settings, TrainedTokenizer) else settings


def _data(recipe: Recipe) -> str:
    """Returns where the rows come from; raises DataError if they are not there."""
    from trainer.data.hub import load_hub

    source = recipe.data.source
    if source.builtin is not None:
        return f"built-in {source.builtin}"
    if source.hub is not None:
        splits, _ = load_hub(source)
        origin = f"{source.hub}/{source.config}" if source.config else source.hub
        rows = ", ".join(f"{len(part):,} {excerpt(name, 30)}" for name, part in splits.items())
        return f"{excerpt(origin, 100)}, {rows} rows"
    named = [
        [paths] if isinstance(paths, str) else paths for paths in (source.files or {}).values()
    ]
    paths = [path for part in named for path in part]
    for path in paths:
        if not os.access(path, os.R_OK):
            raise DataError(
                f"data.source.files: {excerpt(path, 150)} is missing or cannot be read",
                key="data.source.files",
                value=path,
                hint="check its name",
            )
    more = len(paths) - 1
    rest = f" and {more} more file{'s' * (more > 1)}" if more else ""
    return f"{excerpt(paths[0], 100)}{rest}"


def _tokenizer(model: Model) -> str:
    from trainer.models.tokenizers.tokenizer import load_tokenizer

    if isinstance(model.tokenizer, TrainedTokenizer):
        return f"{model.tokenizer.train}, trained on the train split"
    return f"{excerpt(_tokenizer_name(model), 100)}, {len(load_tokenizer(model)):,} tokens"


def _shape(model: Model) -> str:
    from trainer.models.architecture import shape_config, stored_config

    if model.architecture is not None:
        return "numbers in the recipe"
    if model.initialization == "random":
        return f"numbers of a {excerpt(shape_config(model).model_type, 40)}"
    return f"a {excerpt(stored_config(model).model_type, 40)}"


def _weights(model: Model) -> str:
    from trainer.models.pretrained.model_folder import WEIGHTS, check_origin

    check_origin(model)
    name = str(model.name_or_path)
    folder = Path(name) if Path(name).is_dir() else _snapshot(name, model.revision)
    first = next(
        (file for file in WEIGHTS if folder is not None and (folder / file).is_file()), None
    )
    if folder is None or first is None:
        raise ConfigError(
            f"model.name_or_path: {excerpt(name, 150)} has no weights that can be loaded",
            key="model.name_or_path",
            value=name,
            hint=f"it needs {WEIGHTS[0]}",
        )
    files = [folder / file for file in _listed(folder / first)]
    absent = [file.name for file in files if not file.is_file()]
    if absent:
        raise ConfigError(
            f"model.name_or_path: {excerpt(name, 150)} lacks {len(absent)} of {len(files)} files",
            key="model.name_or_path",
            value=name,
            hint=f"the first is {excerpt(absent[0])}",
        )
    size = sum(file.stat().st_size for file in files)
    return (
        f"{excerpt(name, 100)}, {format_bytes(size)} in {len(files)} file{'s' * (len(files) > 1)}"
    )


def _listed(file: Path) -> list[str]:
    """Returns the names of the files of weights, of which `file` is the only one or the index."""
    if not file.name.endswith(".index.json"):
        return [file.name]
    try:
        index: Any = json.loads(file.read_text("utf-8"))
        return sorted(set(map(str, index["weight_map"].values())))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"model.name_or_path: {excerpt(str(file), 150)} is not an index of a model's files",
            key="model.name_or_path",
            value=str(file),
            hint="fetch it again",
        ) from error


def _snapshot(name: str, revision: str | None) -> Path | None:
    """Returns the cached folder of a hub model, None if its configuration is not cached."""
    from huggingface_hub import try_to_load_from_cache

    try:
        file: Any = try_to_load_from_cache(name, "config.json", revision=revision)
    except ValueError:  # the hub has no such names
        return None
    return Path(file).parent if isinstance(file, str) else None
