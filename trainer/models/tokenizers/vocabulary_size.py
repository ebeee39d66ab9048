"""A larger vocabulary for a model whose tokenizer has tokens of its own."""

from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError


def grow_vocabulary(model: Any, size: int) -> None:
    """Gives the embedding of a transformers model, and its output layer, `size` rows.

    New ones are the mean of the others, in either, and their bias is 0. Raises ConfigError for
    models that cannot grow.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    try:
        model.resize_token_embeddings(size, mean_resizing=False)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model.tokenizer: it needs {size} rows and the model has {rows}; a "
            f"{model.config.model_type} cannot grow: use the model's own tokenizer"
        ) from error
    layer: Any
    embedding, output = model.get_input_embeddings(), output_layer(model)
    for layer in {id(one): one for one in (embedding, output) if one is not None}.values():
        with torch.no_grad():
            layer.weight[rows:] = layer.weight[:rows].float().mean(0).to(layer.weight.dtype)
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias[rows:])


def output_layer(model: Any) -> nn.Module | None:
    """Returns the layer of a transformers model that scores the vocabulary; None without one."""
    try:
        return model.get_output_embeddings()
    except (AttributeError, NotImplementedError):
        return None


def is_tied(model: Any) -> bool:
    """Returns whether the output layer has the weight of the embedding."""
    output: Any = output_layer(model)
    return output is not None and output.weight is model.get_input_embeddings().weight
