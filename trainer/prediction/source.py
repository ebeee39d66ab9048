"""Where a model is, and the recipe by which it reads rows: of a run, in a folder or on the hub."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from trainer.engines.precision import COMPUTE_DTYPES, Precision, resolve_precision
from trainer.errors import CheckpointError, ConfigError, RunDirectoryError
from trainer.files.plain import read_json
from trainer.models.architecture import stored_config
from trainer.models.positions import check_length, num_positions
from trainer.models.pretrained.model_folder import check_hub_adapter, check_origin, shown
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.process.run_directory import read_recipe
from trainer.recipe.model import Model
from trainer.recipe.reading import parsed_override, with_value
from trainer.tasks.recipe import Recipe, parse_recipe
from trainer.wording import excerpt

HEADS = {
    "ForSequenceClassification": "classification",
    "ForQuestionAnswering": "question_answering",
    "ForMaskedLM": "masked_lm",
    "ForPreTraining": "masked_lm",
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
}
"""The task that a model without a recipe answers, by the end of its class's name."""
LONGEST = 512
"""Tokens of the longest example for a model without a recipe, unless it has fewer positions."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model is, and the recipe that says how it reads rows."""

    model: str
    """A folder that `from_pretrained` reads, or a name on the hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    recipe: Recipe
    precision: Precision
    validation: Mapping[str, Any]
    """The metrics of the model on the validation split of its run; empty without a run."""
    of_run: bool


def find_source(run_dir_or_model: str | Path, overrides: Sequence[str] = ()) -> Source:
    """Returns where the model of a run is, or of a folder or hub name; reads no weights.

    `overrides` are `key.path=value`, as for a recipe. Raises a TrainerError if there is no model,
    and if they allow longer examples than it has positions for.
    """
    folder = Path(run_dir_or_model)
    if _is_file(folder / "config.yaml"):
        source = _of_run(folder.absolute(), overrides)
    else:
        source = _of_model(str(run_dir_or_model), overrides)
    if overrides:
        config = stored_config(Model(name_or_path=source.model))
        check_length(config, source.recipe.batch.max_seq_length)
    return source


def _of_run(directory: Path, overrides: Sequence[str]) -> Source:
    recipe = read_recipe(directory, Recipe)
    model = directory / "model"
    if not _is_file(model / "config.json"):
        raise CheckpointError(
            f"{directory} has no model yet",
            key=str(directory),
            hint="train the run to its end",
        )
    validation, precision = _measured(directory, recipe)
    if overrides:
        values = _overridden(recipe.model_dump(mode="json"), overrides)
        recipe = parse_recipe(values, str(directory / "config.yaml"))
    wanted = recipe.precision if "precision" in _keys(overrides) else precision
    return Source(
        model=str(model),
        recipe=recipe,
        precision=_possible(wanted),
        validation=validation,
        of_run=True,
    )


def _measured(directory: Path, recipe: Recipe) -> tuple[Mapping[str, Any], str]:
    """Returns the validation metrics of a run's model, and the precision in which it was measured;
    what the recipe says if the run has no results.json."""
    file = directory / "results.json"
    try:
        results = read_json(file)
        validation = results["best"]["metrics"].get("validation", {})
        precision = results["precision"]
        if precision not in COMPUTE_DTYPES or not isinstance(validation, dict):
            raise ValueError("it is not as the run wrote it")
    except FileNotFoundError:
        return {}, recipe.precision
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDirectoryError(
            f"{file} cannot be read ({excerpt(error)}), and answers depend on what the run "
            f"measured",
            key=str(file),
            hint=f"restore it, or name {directory / 'model'} in place of the run",
        ) from error
    return validation, precision


def _of_model(name: str, overrides: Sequence[str]) -> Source:
    settings = Model(name_or_path=name)
    _check_place(name)
    check_origin(settings)
    check_hub_adapter(name, None)
    if Path(name).is_dir() and not _is_file(Path(name) / "config.json"):
        raise ConfigError(
            f"{shown(name)} is neither a run directory nor the folder of a model",
            key="MODEL",
            value=name,
            hint="name a folder inside it that is one, if there is any",
        )
    config = stored_config(settings)
    architecture = str(next(iter(getattr(config, "architectures", None) or ["no class"])))
    task = next((task for end, task in HEADS.items() if architecture.endswith(end)), None)
    if task is None:
        raise ConfigError(
            f"{shown(name)} is a model of the class {excerpt(architecture)}, which answers nothing "
            f"by itself",
            key="MODEL",
            value=architecture,
            hint=f"name a model whose class ends in {', '.join(HEADS)}",
        )
    positions = num_positions(config) or LONGEST
    values: dict[str, Any] = {
        "model": {"name_or_path": name},
        "task": {"name": task},
        "data": {"source": {"builtin": "reviews"}},
        "batch": {"max_seq_length": min(LONGEST, positions)},
    }
    if task == "causal_lm" and load_tokenizer(settings).chat_template:
        values["task"]["chat"] = True
    recipe = parse_recipe(_overridden(values, overrides), shown(name))
    return Source(
        model=name,
        recipe=recipe,
        precision=_possible(recipe.precision),
        validation={},
        of_run=False,
    )


def _check_place(name: str) -> None:
    """Raises ConfigError for what looks like a path, but is not there."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")
    try:
        exists = Path(name).exists()
    except (OSError, ValueError):
        exists, looks_local = False, True
    if (looks_local or not name.isprintable()) and not exists:
        raise ConfigError(
            f"there is no folder {shown(name if name.isprintable() else repr(name))}",
            key="MODEL",
            value=name,
            hint="name a run directory, the folder of a model, or a model on the hub",
        )


def _overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key, value = parsed_override(override)
        values = with_value(values, key, value)
        if key.startswith("data.source.csv"):  # which goes with files only
            values["data"]["source"] = {
                "files": {"train": os.devnull},
                "csv": values["data"]["source"]["csv"],
            }
    return values


def _keys(overrides: Sequence[str]) -> list[str]:
    return [override.partition("=")[0] for override in overrides]


def _possible(wanted: str) -> Precision:
    """Returns a precision, or the automatic one if the device of this process lacks it."""
    try:
        return resolve_precision(cast(Any, wanted))
    except ConfigError:
        return resolve_precision("auto")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
