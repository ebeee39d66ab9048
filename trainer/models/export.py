"""Exports a trained model to a folder that `from_pretrained` loads, and its adapters to another."""

import copy
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer.errors import ConfigError
from trainer.models.quiet import quiet_transformers
from trainer.models.structure import plain_model
from trainer.models.tokenizers.tokenizer import save_tokenizer

SHARD_SIZE = "50GB"
"""Largest file of weights, as transformers writes them by default."""


def export_model(
    model: Any,
    tokenizer: Any,
    folder: Path,
    *,
    ends: Sequence[int] = (),
    num_positions: int | None = None,
    dtype: torch.dtype | None = None,
    shard_size: str = SHARD_SIZE,
) -> None:
    """Writes weights, configurations and tokenizer into `folder`.

    Adapters are merged. A quantised base is dequantised first: merging into quantised weights would
    round them again, and the exported model would differ from the trained one. Generation stops at
    the token ids `ends`, or as in the base if there are none. The tokenizer truncates texts to
    `num_positions` tokens, unless that is None. With `dtype`, weights are converted to that type;
    those of a model without adapters in place. A file holds at most `shard_size` of weights. Raises
    ConfigError if a weight is beyond the type.
    """
    plain = plain_model(model)
    exported = plain if plain is model else merged(model)
    if dtype is not None:
        convert(exported, dtype)
    exported.config.use_cache = True
    own = getattr(plain, "generation_config", None)
    if own is not None:
        exported.generation_config = type(own)()  # save_pretrained rejects some published ones
    with quiet_transformers():
        exported.save_pretrained(folder, max_shard_size=shard_size)
    if own is not None:
        exported.generation_config = own
        if exported.can_generate():
            _with_ends(own, ends).to_json_file(folder / "generation_config.json")
    save_tokenizer(tokenizer, folder, num_positions)
    plain.config.use_cache = False


def convert(model: Any, dtype: torch.dtype) -> None:
    """Converts the weights of a transformers model in place, but for those that transformers itself
    keeps in fp32, as it would on loading.

    Raises ConfigError if a weight is beyond the type.
    """
    kept = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    if dtype == torch.float16:
        kept |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    limit = torch.finfo(dtype).max
    weights = {
        name: weight
        for name, weight in model.named_parameters()
        if weight.is_floating_point() and not kept & set(name.split("."))
    }
    for name, weight in weights.items():
        largest = float(weight.detach().abs().max()) if weight.numel() else 0.0
        if largest > limit:
            raise ConfigError(
                f"--dtype: the weight {name} holds {largest:.4g}, and {str(dtype)[6:]} ends at "
                f"{limit:g}",
                key="--dtype",
                value=str(dtype)[6:],
                hint="use bf16 or fp32",
            )
    for weight in weights.values():
        weight.data = weight.data.to(dtype)


def export_adapter(model: Any, folder: Path) -> None:
    """Writes adapters, and other trained modules, as a folder that PEFT loads onto the base."""
    model.save_pretrained(folder, save_embedding_layers=False)


def merged(model: Any) -> Any:
    """Returns a copy of a PEFT model on the CPU, with its adapters merged. The model is unchanged.

    PEFT merges them, because it knows every variant of LoRA.
    """
    from peft import get_peft_model

    base = model.get_base_model()
    settings = {key: v for key, v in base.config.to_dict().items() if key != "quantization_config"}
    with torch.device("meta"):
        plain = type(base)(type(base.config).from_dict(settings))
    _put(plain, dense_weights(base))
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        adapted = get_peft_model(plain, copy.deepcopy(model.peft_config["default"]))
    # PEFT's set_peft_model_state_dict would do the same, but in a process group PEFT before 0.20
    # imports a class that transformers 5.17 does not have.
    state = model.state_dict()
    trained = {name: state[name].cpu() for name in state if _OWN.search(f".{name}.")}
    missing, unexpected = adapted.load_state_dict(trained, strict=False)
    assert not unexpected
    assert not any(_OWN.search(f".{name}.") for name in missing)
    return adapted.merge_and_unload()


def dense_weights(base: nn.Module) -> dict[str, Tensor]:
    """Returns copies on the CPU of a base's weights, dequantised, by their names without adapters.

    Tied weights are one tensor under several names.
    """
    weights: dict[str, Tensor] = {}
    copies: dict[int, Tensor] = {}
    module: Any  # torch has no public name for non-persistent buffers
    for path, module in base.named_modules(remove_duplicate=False):
        if _OWN.search(f".{path}."):
            continue
        for leaf, value in (*module._parameters.items(), *module._buffers.items()):
            if value is None or leaf in module._non_persistent_buffers_set:
                continue
            if id(value) not in copies:
                dense = dense_weight(module) if leaf == "weight" else value.detach()
                dense = dense.cpu().contiguous()
                is_copy = dense.data_ptr() != value.data_ptr()
                copies[id(value)] = dense if is_copy else dense.clone()
            prefix = _WRAPPING.sub(".", f".{path}.")[1:] if path else ""
            weights[f"{prefix}{leaf}"] = copies[id(value)]
    return weights


_OWN = re.compile(r"\.(lora_[^.]+|modules_to_save|trainable_tokens_[^.]+)\.")
"""Modules that PEFT adds to a model."""
_WRAPPING = re.compile(r"\.(base_layer|original_module|token_adapter\.base_layer)(?=\.)\.?")
"""Parts of a name that stand for PEFT's wrapper around a module of the model."""


def dense_weight(layer: Any) -> Tensor:
    """Returns the weight of a layer, dequantised if bitsandbytes packed it.

    The shape is that of the layer before it was packed: [out, in], but [in, out] for a Conv1D.
    """
    weight = layer.weight
    if type(weight).__name__ in ("Params4bit", "Int8Params"):
        from peft.utils.integrations import dequantize_bnb_weight
        from transformers.pytorch_utils import Conv1D

        dense = dequantize_bnb_weight(weight, state=getattr(layer, "state", None)).detach()
        return dense.T if getattr(layer, "source_cls", None) is Conv1D else dense
    return weight.detach()


def packed_layer(model: nn.Module) -> Any:
    """Returns the first layer whose weight is packed in 4 bits, or None."""
    for module in model.modules():
        if type(getattr(module, "weight", None)).__name__ == "Params4bit":
            return module
    return None


def _put(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Replaces parameters and buffers by the tensors of the same names; tied weights stay tied."""
    parameters: dict[int, nn.Parameter] = {}
    for name, value in weights.items():
        path, _, leaf = name.rpartition(".")
        module: Any = model.get_submodule(path)
        if leaf in module._buffers:
            module._buffers[leaf] = value
            continue
        assert module._parameters[leaf].shape == value.shape, name
        parameters.setdefault(id(value), nn.Parameter(value, requires_grad=False))
        module._parameters[leaf] = parameters[id(value)]
    absent = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    assert not absent, absent


def _with_ends(settings: Any, ends: Sequence[int]) -> Any:
    """Returns generation settings that stop at the token ids `ends`; unchanged if there are none,
    or if they already do."""
    own = settings.eos_token_id
    if not ends or set(ends) == set(own if isinstance(own, list) else [own]):
        return settings
    changed = copy.deepcopy(settings)
    changed.eos_token_id = list(ends)
    return changed
