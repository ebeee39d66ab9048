"""Span heads for models that transformers gives none, such as Phi.

Their exported folders name a class that only this module makes; their model card says how one is
loaded elsewhere.
"""

from typing import Any

from trainer.errors import ConfigError

HOW_TO_LOAD = """\
transformers has no such class of its own. With this package installed, `folder` is loaded by

```python
from transformers import AutoConfig, AutoModelForQuestionAnswering
from trainer.models.span_head import ensure_span_head

ensure_span_head(AutoConfig.from_pretrained(folder))
model = AutoModelForQuestionAnswering.from_pretrained(folder)
```
"""


def how_to_load(model: Any) -> str:
    """Returns what a model card says of loading; nothing for the classes of transformers."""
    plain = model.get_base_model() if hasattr(model, "peft_config") else model
    return HOW_TO_LOAD if type(plain).__module__ == __name__ else ""


def ensure_span_head(model_config: Any) -> None:
    """Makes AutoModelForQuestionAnswering know a class for the models of this configuration.

    Where transformers has none, the class is the backbone with a linear layer for start and end,
    as it has them for Llama and Mistral. Raises ConfigError for what has no backbone.
    """
    from transformers import MODEL_MAPPING, AutoModelForQuestionAnswering

    settings = type(model_config)
    known: Any = AutoModelForQuestionAnswering
    if known._model_mapping.get(settings, None) is not None:
        return
    backbones: Any = MODEL_MAPPING
    backbone = backbones.get(settings, None)
    if not isinstance(backbone, type) or getattr(model_config, "is_encoder_decoder", False):
        raise ConfigError(
            f"model: a {model_config.model_type} gives no answers out of a text; use an encoder "
            f"such as bert or a decoder such as llama"
        )
    # Without exist_ok, classes for configurations of transformers' own are passed over in silence.
    known.register(settings, _span_model(backbone), exist_ok=True)


def _span_model(backbone: Any) -> Any:
    """Returns the class of a model with its backbone under the name that pretrained weights have.

    It derives from the backbone's own PreTrainedModel: how weights are drawn and which attention
    is supported stand there.
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
