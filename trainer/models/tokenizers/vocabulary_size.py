"""Grows the vocabulary of a model to the size of its tokenizer's."""

from typing import Any

import torch
from torch import nn

from trainer.errors import ConfigError
from trainer.models.structure import output_layer


def grow_vocabulary(model: Any, size: int) -> None:
    """Grows the embedding of a transformers model and its output layer to `size` rows.

    New rows are the mean of the layer's other rows, and their biases are 0. Raises ConfigError for
    a model that cannot grow.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    try:
        model.resize_token_embeddings(size, mean_resizing=False)
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:
        raise ConfigError(
            f"model.tokenizer: the tokenizer needs {size} rows, the model has {rows}, and a "
            f"{model.config.model_type} cannot grow",
            key="model.tokenizer",
            value=size,
            hint="use the model's own tokenizer",
        ) from error
    layer: Any
    embedding, output = model.get_input_embeddings(), output_layer(model)
    for layer in {id(layer): layer for layer in (embedding, output) if layer is not None}.values():
        with torch.no_grad():
            layer.weight[rows:] = layer.weight[:rows].float().mean(0).to(layer.weight.dtype)
        if getattr(layer, "bias", None) is not None:
            nn.init.zeros_(layer.bias[rows:])
