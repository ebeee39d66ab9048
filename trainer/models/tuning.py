"""Tuning modes: which weights are trained, directly or through adapters."""

import difflib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError
from trainer.models.load import LoadedModel
from trainer.models.structure import is_tied, output_layer
from trainer.recipe.tuning import AdapterTuning, FullTuning, HeadOnlyTuning, Tuning

ZEROED_PADDING = ("funnel",)
"""Model types whose padding row from_pretrained sets to 0."""
NEVER_CALLED = {"mobilebert": "cls.predictions.dense"}
"""Layers whose weight a model type reads without calling them: adapters there have no effect."""
LORA_NAMES = {"alpha": "lora_alpha", "dropout": "lora_dropout"}
"""Recipe keys that have another name in PEFT's LoraConfig."""


def apply_tuning(
    loaded: LoadedModel,
    tuning: Tuning,
    *,
    trains_head: bool,
    gradient_checkpointing: bool,
    new_tokens: Sequence[int] = (),
    revision: str | None = None,
) -> nn.Module:
    """Returns the model in which exactly the weights that `tuning` names are trainable, in fp32.

    head_only and the adapter modes train the head if it belongs to the task (`trains_head`), and
    modules without pretrained weights, such as a new pooler. The adapter modes also train the
    vocabulary rows of `new_tokens`. `revision` is that of the base model. Raises ConfigError for
    target modules that the model does not have, and for models whose export would differ from the
    trained model.
    """
    model = loaded.model
    model.config.use_cache = False
    trained = _trained_modules(loaded, trains_head)
    if isinstance(tuning, HeadOnlyTuning):
        if not (trains_head and trained):
            raise ConfigError(
                "tuning.mode: head_only needs a head that belongs to the task, but the head of a "
                "language model is its vocabulary",
                key="tuning.mode",
                value="head_only",
                hint="use lora or full",
            )
        model.requires_grad_(False)
        for name in trained:
            model.get_submodule(name).requires_grad_(True)
    elif isinstance(tuning, FullTuning):
        if model.config.model_type in ZEROED_PADDING and is_tied(model):
            raise ConfigError(
                f"tuning.mode: full trains the padding row of the vocabulary, which transformers "
                f"sets to 0 whenever it loads a {model.config.model_type}",
                key="tuning.mode",
                value="full",
                hint="use lora",
            )
    else:
        adapters = _adapters(model, tuning, trained, new_tokens, revision)
        model = _with_adapters(model, adapters, gradient_checkpointing)
    if gradient_checkpointing:
        enable_gradient_checkpointing(loaded.model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return model


def enable_gradient_checkpointing(model: Any) -> None:
    """Lets a transformers model compute the activations of its layers again in backward.

    Raises ConfigError if transformers does not implement that for the model.
    """
    # Older versions of transformers have only the second name; newer ones warn about it.
    new_name = hasattr(model, "activation_checkpointing_enable")
    enable = "activation_checkpointing_enable" if new_name else "gradient_checkpointing_enable"
    try:
        getattr(model, enable)({"use_reentrant": False})
    except ValueError as error:
        raise ConfigError(
            f"model.gradient_checkpointing: transformers has none for models of the type "
            f"{model.config.model_type}",
            key="model.gradient_checkpointing",
            value=True,
            hint="set it to false",
        ) from error


def _trained_modules(loaded: LoadedModel, trains_head: bool) -> list[str]:
    """Returns the names of modules that are trained whole: those without pretrained weights, and
    the head if the task trains it.

    No module in the list contains another. A fresh output layer that is tied to the embedding is
    left out: its only own weight is a bias, which stays 0.
    """
    model, names = loaded.model, set(loaded.head) if trains_head else set[str]()
    if "*" not in loaded.fresh:
        output = output_layer(model) if is_tied(model) else None
        names |= {
            name
            for name in loaded.fresh
            if output is None
            or all(module is not output for module in model.get_submodule(name).modules())
        }
    return sorted(name for name in names if not _is_inside(name, names - {name}))


def _is_inside(name: str, modules: Iterable[str]) -> bool:
    """Returns whether a module is inside one of the `modules`, by their names."""
    return name.startswith(tuple(f"{module}." for module in modules))


def _adapters(
    model: Any,
    tuning: AdapterTuning,
    trained: list[str],
    new_tokens: Sequence[int],
    revision: str | None,
) -> Any:
    """Returns PEFT's settings of the adapters."""
    from peft import LoraConfig
    from transformers.pytorch_utils import Conv1D

    targets = _targets(model, tuning, trained)
    layers = map(model.get_submodule, targets)
    sources = [getattr(layer, "source_cls", type(layer)) for layer in layers]
    settings = tuning.model_dump(exclude={"mode", "target_modules"})
    return LoraConfig(
        **{LORA_NAMES.get(name, name): value for name, value in settings.items()},
        target_modules=targets,
        fan_in_fan_out=all(source is Conv1D for source in sources),
        modules_to_save=trained or None,
        trainable_token_indices=_trained_rows(model, new_tokens, trained),
        revision=revision,
    )


def _trained_rows(
    model: Any, new_tokens: Sequence[int], trained: list[str]
) -> dict[str, list[int]] | None:
    """Returns PEFT's `trainable_token_indices`: the rows of new tokens by the name of their layer.

    Raises ConfigError if PEFT could not tell whether the vocabulary is tied.
    """
    if not new_tokens:
        return None
    output, tied = output_layer(model), is_tied(model)
    if output is not None and tied != bool(model.config.get_text_config().tie_word_embeddings):
        raise ConfigError(
            f"model.tokenizer: new tokens cannot be trained through adapters, because weights and "
            f"configuration of this {model.config.model_type} disagree on whether its vocabulary "
            f"is tied",
            key="model.tokenizer",
            value=model.config.model_type,
            hint="use tuning.mode: full",
        )
    layers = [model.get_input_embeddings(), *([] if output is None or tied else [output])]
    names = {id(module): name for name, module in model.named_modules()}
    rows = {names[id(layer)]: list(new_tokens) for layer in layers}
    return {name: tokens for name, tokens in rows.items() if name not in trained}


def _with_adapters(model: Any, adapters: Any, gradient_checkpointing: bool) -> nn.Module:
    from peft import get_peft_model

    model.requires_grad_(False)
    if gradient_checkpointing:
        model.enable_input_require_grads()
    with warnings.catch_warnings():
        # PEFT warns that it corrects this setting layer by layer, which it does right.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        tuned = get_peft_model(model, adapters)
    if adapters.trainable_token_indices:
        from trainer.models.output_tokens import score_by_new_rows

        score_by_new_rows(tuned)
    return tuned


def _targets(model: Any, tuning: AdapterTuning, trained: list[str]) -> list[str]:
    """Returns the full names of the linear layers that get an adapter, never the output layer.

    Raises ConfigError if the model has no linear layer, or none of a given name.
    """
    from transformers.pytorch_utils import Conv1D

    output = output_layer(model)
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and module is not output
        and name != NEVER_CALLED.get(model.config.model_type)
        and name not in trained
        and not _is_inside(name, trained)
    ]
    if not linear:
        raise ConfigError(
            "tuning.mode: the model has no linear layer for an adapter",
            key="tuning.mode",
            value=tuning.mode,
            hint="use full",
        )
    if tuning.target_modules == "all-linear":
        return linear
    for target in tuning.target_modules:
        if not any(_is_named(name, target) for name in linear):
            names = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            near = difflib.get_close_matches(target, names, n=1, cutoff=0.4)
            raise ConfigError(
                f"tuning.target_modules: the model has no linear layer {target}; it has "
                f"{', '.join(names)}",
                key="tuning.target_modules",
                value=target,
                hint=f"did you mean {near[0]}?" if near else None,
            )
    return [name for name in linear if any(_is_named(name, t) for t in tuning.target_modules)]


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")
