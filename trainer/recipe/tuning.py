"""The section `tuning` of a recipe: one model for each kind of mode."""

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Discriminator,
    Tag,
    model_validator,
)
from pydantic_core import PydanticKnownError

from trainer.recipe.section import Fraction, ListOf, PositiveInt, Section


class AdapterTuning(Section):
    """LoRA (Hu et al. 2021): trains adapters of linear layers; the model itself is frozen."""

    mode: Literal["lora", "qlora", "int8_lora"] = "lora"
    """How the weights under the adapters are stored: unchanged, in 4 bits (NF4), or in 8 bits
    (LLM.int8)."""
    r: PositiveInt = 16
    """Rank of the adapters."""
    alpha: PositiveInt = 32
    """Scale of the adapters: their output is multiplied by alpha / r."""
    dropout: Fraction = 0.05
    """Dropout probability of the adapters' input."""
    target_modules: Literal["all-linear"] | ListOf[str] = "all-linear"
    """Names of the linear layers that get an adapter, in full or only the last part; `all-linear`
    is all outside the head."""
    bias: Literal["none", "all", "lora_only"] = "none"
    """Biases to train: `none`, `all` of the model, or those of layers with an adapter."""


ADAPTER_MODES = get_args(AdapterTuning.model_fields["mode"].annotation)
TUNING_MODES = ("full", "head_only", *ADAPTER_MODES)


def without_adapter_keys(tuning: Any) -> Any:
    """Returns a tuning section, as read from YAML, without adapter keys if its mode has none.

    Recipes may have such keys if their mode was overridden, and older runs always have them.
    """
    if not isinstance(tuning, dict) or tuning.get("mode", "full") in ADAPTER_MODES:
        return tuning
    adapters = AdapterTuning.model_fields.keys() - {"mode"}
    return {key: value for key, value in tuning.items() if key not in adapters}


def _known_mode(value: Any) -> Any:
    if value not in TUNING_MODES:
        raise PydanticKnownError("literal_error", {"expected": ", ".join(map(repr, TUNING_MODES))})
    return value


class FullTuning(Section):
    mode: Annotated[Literal["full"], BeforeValidator(_known_mode)] = "full"
    """Train all weights."""

    @model_validator(mode="before")
    @classmethod
    def _without_adapters(cls, values: Any) -> Any:
        return without_adapter_keys(values)


class HeadOnlyTuning(Section):
    mode: Literal["head_only"] = "head_only"
    """Train the task's head; the backbone is frozen."""

    @model_validator(mode="before")
    @classmethod
    def _without_adapters(cls, values: Any) -> Any:
        return without_adapter_keys(values)


def _tuning_kind(value: Any) -> str:
    mode = value.get("mode", "full") if isinstance(value, dict) else getattr(value, "mode", None)
    if mode in ADAPTER_MODES:
        return "adapters"
    return "head_only" if mode == "head_only" else "full"  # FullTuning rejects unknown modes


Tuning = Annotated[
    Annotated[FullTuning, Tag("full")]
    | Annotated[HeadOnlyTuning, Tag("head_only")]
    | Annotated[AdapterTuning, Tag("adapters")],
    Discriminator(_tuning_kind),
]
