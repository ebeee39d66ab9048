"""Span heads for models that have none in transformers, such as Phi.

Exported folders of such models name a class that only this module defines. Their model card says
how to load them.
"""

from typing import Any

from trainer.errors import ConfigError
from trainer.models.structure import is_encoder_decoder, plain_model

HOW_TO_LOAD = """\
transformers has no such class. With this package installed, load `folder` like this:

```python
from transformers import AutoConfig, AutoModelForQuestionAnswering
from trainer.models.span_head import ensure_span_head

ensure_span_head(AutoConfig.from_pretrained(folder))
model = AutoModelForQuestionAnswering.from_pretrained(folder)
```
"""


def how_to_load(model: Any) -> str:
    """Returns the section of a model card about loading; empty for classes of transformers."""
    return HOW_TO_LOAD if type(plain_model(model)).__module__ == __name__ else ""


def ensure_span_head(model_config: Any) -> None:
    """Registers a class with AutoModelForQuestionAnswering if transformers has none for a model.

    The class is the backbone with a linear layer for start and end, as in transformers' classes for
    Llama and Mistral. Raises ConfigError for encoder-decoders, and for models that have no backbone
    class.
    """
    from transformers import MODEL_MAPPING, AutoModelForQuestionAnswering

    config_class = type(model_config)
    auto: Any = AutoModelForQuestionAnswering
    if auto._model_mapping.get(config_class, None) is not None:
        return
    backbones: Any = MODEL_MAPPING
    backbone = backbones.get(config_class, None)
    if not isinstance(backbone, type) or is_encoder_decoder(model_config):
        raise ConfigError(
            f"model: a {model_config.model_type} cannot have a span head for question answering",
            key="model",
            value=model_config.model_type,
            hint="use an encoder such as bert or a decoder such as llama",
        )
    # Not by auto.register: in transformers 5.17 it ignores every class for a configuration of
    # transformers itself, even with exist_ok.
    auto._model_mapping._extra_content[config_class] = _span_model(backbone)


def _span_model(backbone: Any) -> Any:
    """Returns a class with a span head, whose backbone has its name in pretrained weights.

    The class derives from the backbone's PreTrainedModel, which defines how weights are initialised
    and which attention is supported.
    """
    from transformers.modeling_layers import GenericForQuestionAnswering

    pretrained = next(
        kind for kind in backbone.__mro__ if kind.__name__.endswith("PreTrainedModel")
    )

    def get_input_embeddings(self: Any) -> Any:
        return self.base_model.get_input_embeddings()

    def set_input_embeddings(self: Any, value: Any) -> None:
        self.base_model.set_input_embeddings(value)

    return type(
        f"{backbone.__name__.removesuffix('Model')}ForQuestionAnswering",
        (GenericForQuestionAnswering, pretrained),
        {
            "__module__": __name__,
            "base_model_prefix": backbone.base_model_prefix or "model",
            "get_input_embeddings": get_input_embeddings,
            "set_input_embeddings": set_input_embeddings,
        },
    )
