"""The tuned model of a recipe on the meta device, with packed layers in place of weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.errors import ConfigError
from trainer.models.load import (
    QUANTISED,
    LoadedModel,
    ModelSpec,
    from_numbers,
    load_shape,
    unquantised_modules,
)
from trainer.models.output_layer import OutputLayer
from trainer.models.tuning import apply_tuning
from trainer.planning.outline import outline
from trainer.recipe.schema import Recipe
from trainer.tasks import task_of
from trainer.tasks.base import Task


@dataclass(frozen=True, kw_only=True)
class PlannedModel:
    model: nn.Module
    """As it is trained, on the meta device."""
    task: Task
    """Without data and tokenizer."""
    layers: Sequence[nn.Module]
    """Its repeated layers; empty if it has none."""
    repeats: int | None
    """Number of layers of the real model, of which `layers` are a few; None if it has as many."""


def planned_model(
    recipe: Recipe,
    numbers: Any,
    precision: Precision,
    *,
    on_gpu: bool,
    layers: int | None = None,
) -> PlannedModel:
    """Returns the model of a recipe as `build_model` tunes it, but without weights.

    `numbers` is its transformers configuration; `layers` replaces the number of layers. Raises
    ConfigError if the task has no plan, or the recipe's model cannot be tuned so.
    """
    config = copy.deepcopy(numbers) if layers is None else _with_layers(numbers, layers)
    if config.get_text_config().pad_token_id is None:
        config.get_text_config().pad_token_id = 0  # a run takes that of the tokenizer
    kind = task_of(recipe)
    task = kind.unread(recipe, config)
    if task is None:
        raise ConfigError(
            f"task.name: the task {recipe.task.name} does not say what its batches are like, so "
            f"that a run of it cannot be planned",
            key="task.name",
            value=recipe.task.name,
            hint="give its class `unread` and `full_batch`",
        )
    for name, value in task.config_values().items():
        setattr(config, name, value)
    spec = ModelSpec(
        recipe.model,
        config,
        auto_model=task.auto_model,
        tokenizer_size=config.get_text_config().vocab_size,
        mode=recipe.tuning.mode,
        frozen_dtype=COMPUTE_DTYPES[precision],
        seed=recipe.seed,
    )
    loaded = load_shape(spec)
    if spec.mode in QUANTISED:
        _pack(loaded, spec.mode, spec.frozen_dtype, on_gpu=on_gpu)
    model = apply_tuning(
        loaded,
        recipe.tuning,
        trains_head=task.trains_head,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
    )
    for module in model.modules():
        if isinstance(module, OutputLayer):
            module.is_last = True  # as the first step of a run finds by comparing values
    repeats = None if layers is None else num_layers(numbers)
    return PlannedModel(model=model.train(), task=task, layers=repeated(model), repeats=repeats)


def repeated(model: nn.Module) -> Sequence[nn.Module]:
    """Returns the longest list of modules in a model."""
    stacks = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(stacks, key=len, default=[]))


def _pack(loaded: LoadedModel, mode: str, dtype: torch.dtype, *, on_gpu: bool) -> None:
    """Replaces the layers that bitsandbytes quantises while it loads a model."""
    from trainer.planning.trace.packed_layers import Packed4bit, Packed8bit

    model = loaded.model
    kept = tuple(unquantised_modules(model))
    for name, module in list(model.named_modules()):
        if type(module) is not nn.Linear or _is_inside(name, kept):
            continue
        parent, _, leaf = name.rpartition(".")
        if mode == "qlora":
            layer = Packed4bit(module, dtype, double=True)
        else:
            layer = Packed8bit(module, on_gpu=on_gpu)
        setattr(model.get_submodule(parent), leaf, layer)
    model.is_loaded_in_4bit = mode == "qlora"
    model.is_loaded_in_8bit = mode == "int8_lora"


def _is_inside(name: str, modules: tuple[str, ...]) -> bool:
    return any(name == module or name.startswith(f"{module}.") for module in modules)


def num_layers(config: Any) -> int:
    """Returns the number of layers of a decoder or encoder."""
    return config.get_text_config().num_hidden_layers


def _with_layers(config: Any, number: int) -> Any:
    """Returns a copy of a transformers configuration with the first `number` layers."""
    changed = copy.deepcopy(config)
    text = changed.get_text_config()
    for name, values in _by_layer(text).items():
        setattr(text, name, values[:number])
    text.num_hidden_layers = number
    return changed


def _by_layer(text_config: Any) -> dict[str, Any]:
    """Returns the settings that have a value for each layer, such as `layer_types`."""
    number = text_config.num_hidden_layers
    return {
        name: values
        for name, values in vars(text_config).items()
        if isinstance(values, list | tuple) and len(values) == number
    }


def has_equal_layers(recipe: Recipe, numbers: Any) -> bool:
    """Returns whether all layers of a recipe's model are built and tuned alike."""
    if not tunes_layers_alike(recipe):
        return False
    by_layer = _by_layer(numbers.get_text_config()).values()
    if any(len(set(map(str, values))) > 1 for values in by_layer):
        return False
    import transformers

    task = task_of(recipe)
    auto = getattr(transformers, task.model_class(recipe, numbers))
    with torch.device("meta"):
        rows = outline(from_numbers(auto, recipe.model, numbers))
    return any(row.repeats == num_layers(numbers) for row in rows)


def tunes_layers_alike(recipe: Recipe) -> bool:
    """Returns whether no target of adapters names a single layer."""
    targets = getattr(recipe.tuning, "target_modules", "all-linear")
    return targets == "all-linear" or not any(
        part.isdigit() for target in targets for part in target.split(".")
    )
