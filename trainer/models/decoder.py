"""Which models are decoders, in which each position attends only to earlier ones."""

from typing import Any

CAUSAL_BY_NAME_ONLY = ("bert-generation", "cpmant", "xlnet")
"""Model types that have only a causal class, although their attention is not causal."""


def is_decoder(model_config: Any) -> bool:
    """Returns whether a model is a decoder: its first positions do not depend on later ones."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = model_config.model_type
    encoders = (*MODEL_FOR_MASKED_LM_MAPPING_NAMES, *CAUSAL_BY_NAME_ONLY)
    # An encoder has a causal class too, but its attention is causal only if this is set.
    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and (
        kind not in encoders or getattr(model_config, "is_decoder", False)
    )
