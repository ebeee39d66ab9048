"""Writes a trained model as one folder that `from_pretrained` loads."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn


def export_model(model: Any, tokenizer: Any, folder: Path, *, auto_model: str) -> None:
    """Writes weights, configuration and tokenizer into `folder`.

    Adapters are merged. A quantised base is dequantised first: merged into quantised weights they
    would be rounded again, and the model would be another than the one that was trained.
    """
    import transformers

    plain = model.base_model.model if hasattr(model, "peft_config") else model
    plain.config.use_cache = True
    if plain is model:
        model.save_pretrained(folder)
    else:
        settings = type(plain.config).from_dict(_without_quantisation(plain.config))
        with torch.device("meta"):
            empty = getattr(transformers, auto_model).from_config(settings)
        empty.save_pretrained(folder, state_dict=merged_weights(plain))
    tokenizer.save_pretrained(folder)
    plain.config.use_cache = False


def export_adapter(model: Any, folder: Path) -> None:
    """Writes the adapters and the trained head alone, as PEFT loads them."""
    model.save_pretrained(folder)


def merged_weights(model: nn.Module) -> dict[str, Tensor]:
    """Returns the weights of a model with adapters, under the names they have without them."""
    from peft.tuners.lora import LoraLayer
    from peft.utils import ModulesToSaveWrapper

    weights: dict[str, Tensor] = {}
    done: list[str] = []
    for name, module in model.named_modules():
        if any(name == other or name.startswith(f"{other}.") for other in done):
            continue
        if isinstance(module, ModulesToSaveWrapper):
            trained: Any = module.modules_to_save["default"]
            weights |= {f"{name}.{key}": value for key, value in trained.state_dict().items()}
            done.append(name)
        elif isinstance(module, nn.Linear | LoraLayer):
            base: Any = module.get_base_layer() if isinstance(module, LoraLayer) else module
            weight = dense_weight(base)
            if isinstance(module, LoraLayer):
                delta: Any = module
                merged = weight.float() + delta.get_delta_weight("default").float()
                weight = merged.to(weight.dtype)
            weights[f"{name}.weight"] = weight
            if base.bias is not None:
                weights[f"{name}.bias"] = base.bias.detach()
            done.append(name)
        else:
            own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
            whole: Any = module  # torch has no public name for the buffers it does not save
            transient = whole._non_persistent_buffers_set
            prefix = f"{name}." if name else ""
            weights |= {prefix + key: value.detach() for key, value in own if key not in transient}
    return {name: value.cpu().contiguous() for name, value in weights.items()}


def dense_weight(layer: Any) -> Tensor:
    """Returns the weight of a linear layer, dequantised where bitsandbytes packed it."""
    weight = layer.weight
    if type(weight).__name__ in ("Params4bit", "Int8Params"):
        from peft.utils.integrations import dequantize_bnb_weight

        return dequantize_bnb_weight(weight, state=getattr(layer, "state", None)).detach()
    return weight.detach()


def packed_layer(model: nn.Module) -> Any:
    """Returns the first layer whose weight is packed in 4 bits, None where none is."""
    for module in model.modules():
        if type(getattr(module, "weight", None)).__name__ == "Params4bit":
            return module
    return None


def _without_quantisation(settings: Any) -> dict[str, Any]:
    return {key: v for key, v in settings.to_dict().items() if key != "quantization_config"}
