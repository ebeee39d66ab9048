"""Tuning modes: which weights learn, and through what."""

import difflib
from typing import Any

import torch
from torch import nn

from trainer import config
from trainer.errors import ConfigError
from trainer.models.load import LoadedModel


def apply_tuning(
    loaded: LoadedModel,
    tuning: config.Tuning,
    *,
    trains_head: bool,
    gradient_checkpointing: bool,
) -> nn.Module:
    """Returns the model with exactly the weights trainable that `tuning` says, in fp32.

    head_only and the adapter modes train the head where it is the task's own (`trains_head`), and
    modules that have no pretrained weights, such as a new pooler. Raises ConfigError for target
    modules that the model does not have.
    """
    model = loaded.model
    model.config.use_cache = False
    learned = _learned_modules(loaded, trains_head)
    if tuning.mode == "head_only":
        if not (trains_head and learned):
            raise ConfigError(
                "tuning.mode: head_only needs a head that is the task's own; a language model's "
                "is its vocabulary: use lora or full"
            )
        model.requires_grad_(False)
        for name in learned:
            model.get_submodule(name).requires_grad_(True)
    elif tuning.mode != "full":
        model = _with_adapters(model, tuning, learned, gradient_checkpointing)
    if gradient_checkpointing:
        loaded.model.activation_checkpointing_enable({"use_reentrant": False})
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return model


def _learned_modules(loaded: LoadedModel, trains_head: bool) -> list[str]:
    """Returns the head, if it is the task's, and modules without pretrained weights beside it."""
    names = set(loaded.head) if trains_head else set[str]()
    if "*" not in loaded.fresh:
        inside = tuple(f"{name}." for name in names)
        names |= {name for name in loaded.fresh if not f"{name}.".startswith(inside)}
    return sorted(names)


def _with_adapters(
    model: Any, tuning: config.Tuning, learned: list[str], gradient_checkpointing: bool
) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=tuning.r,
        lora_alpha=tuning.alpha,
        lora_dropout=tuning.dropout,
        target_modules=_targets(model, tuning, learned),
        bias=tuning.bias,
        modules_to_save=learned or None,
    )
    model.requires_grad_(False)
    if gradient_checkpointing:
        model.enable_input_require_grads()
    return get_peft_model(model, adapters)


def _targets(model: Any, tuning: config.Tuning, learned: list[str]) -> list[str]:
    """Returns the full names of the linear layers that get an adapter."""
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not any(name == other or name.startswith(f"{other}.") for other in learned)
    ]
    linear = [name for name in linear if model.get_submodule(name) is not _output_layer(model)]
    if not linear:
        raise ConfigError("tuning.mode: the model has no linear layer for an adapter; use full")
    if tuning.target_modules == "all-linear":
        return linear
    for target in tuning.target_modules:
        if not any(_is_named(name, target) for name in linear):
            known = list(dict.fromkeys(name.rpartition(".")[2] for name in linear))
            near = difflib.get_close_matches(target, known, n=1, cutoff=0.4)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"tuning.target_modules: the model has no linear layer {target}; it has "
                f"{', '.join(known)}{hint}"
            )
    return [name for name in linear if any(_is_named(name, t) for t in tuning.target_modules)]


def _is_named(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def _output_layer(model: Any) -> nn.Module | None:
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None
