"""Which models are decoders: each position sees only those before it."""

from typing import Any

CAUSAL_BY_NAME_ONLY = ("bert-generation", "cpmant", "xlnet")
"""Model types with a causal class but none for masked tokens, whose positions see later ones."""


def is_decoder(model_config: Any) -> bool:
    """Returns whether a model is a decoder, whose first positions know nothing of later ones."""
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
