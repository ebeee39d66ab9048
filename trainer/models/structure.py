"""The parts of a transformers model: its backbone, its head and its output layer."""

from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError


def plain_model(model: Any) -> Any:
    """Returns the transformers model under PEFT's adapters, or the model itself if it has none."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def is_encoder_decoder(model_config: Any) -> bool:
    """Returns whether a model encodes one text and decodes another, as T5 does."""
    return bool(getattr(model_config, "is_encoder_decoder", False))


def output_layer(model: Any) -> nn.Module | None:
    """Returns the layer of a transformers model that computes vocabulary logits, or None."""
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def is_tied(model: Any) -> bool:
    """Returns whether the output layer shares the weight of the embedding."""
    output: Any = output_layer(model)
    return output is not None and output.weight is model.get_input_embeddings().weight


def head_modules(model: Any) -> tuple[str, ...]:
    """Returns the names of a transformers model's direct children outside its backbone.

    Only children with weights are named; a model that is the backbone itself has none. Raises
    ConfigError if the backbone cannot be told from the head: the whole model would then count as
    head, all of it would be trained and nothing quantised.
    """
    parts = [
        name for name, module in model.named_children() if any(True for _ in module.parameters())
    ]
    backbone = _backbone_children(model)
    head = tuple(name for name in parts if name not in backbone)
    if head and len(head) == len(parts):
        if output_layer(model) is None and isinstance(model, _backbone_class(model) or ()):
            return ()
        raise ConfigError(
            f"model: the backbone of a {type(model).__name__} cannot be told from its head "
            f"({', '.join(head)})",
            key="model",
            value=model.config.model_type,
            hint="use a model of another type",
        )
    return head


def backbone_weights(model: Any) -> set[str]:
    """Returns the names of the backbone's weights in the class that AutoModel has for it.

    Empty if there is no such class, or if the model is one.
    """
    kind = _backbone_class(model)
    if kind is None or isinstance(model, kind):
        return set()
    with torch.device("meta"):
        return set(kind(model.config).state_dict())


def _backbone_children(model: Any) -> set[str]:
    """Returns the names of the direct children that are, or belong to, the backbone."""
    from transformers import PreTrainedModel

    if hasattr(model, model.base_model_prefix):
        return {model.base_model_prefix}
    kind = _backbone_class(model) or PreTrainedModel
    backbones = {name for name, child in model.named_children() if isinstance(child, kind)}
    # Some models, such as T5, have the modules of their backbone as direct children.
    return backbones or {key.partition(".")[0] for key in backbone_weights(model)}


def _backbone_class(model: Any) -> type[nn.Module] | None:
    from transformers import MODEL_MAPPING

    mapping: Any = MODEL_MAPPING
    kind = mapping.get(type(model.config), None)
    return kind[0] if isinstance(kind, tuple) else kind
