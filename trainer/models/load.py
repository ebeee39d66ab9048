"""Models: pretrained, random from a name's shape, or from architecture numbers."""

import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_model

from trainer import config
from trainer.errors import ConfigError, excerpt
from trainer.models.tokenizer import missing

QUANTISED = ("qlora", "int8_lora")


@dataclass(frozen=True)
class LoadedModel:
    model: Any
    """A transformers model."""
    head: tuple[str, ...]
    """Names of its modules outside the backbone."""
    fresh: tuple[str, ...]
    """Names of modules without pretrained weights, which frozen would stay random."""


def load_model(
    model: config.Model,
    model_config: Any,
    *,
    auto_model: str,
    tokenizer_size: int,
    mode: str,
    frozen_dtype: torch.dtype,
    seed: int,
    shape_only: bool = False,
    fetch_only: bool = False,
) -> LoadedModel:
    """Returns the model on the CPU, or where a quantised one is put, before any tuning.

    Weights that learn are fp32; the others of adapter and head-only modes are `frozen_dtype`.
    What is not pretrained is drawn from `seed`. With `shape_only` it is on the meta device, without
    weights, and what is fresh is not known. With `fetch_only` it is there, too, but all files of
    pretrained weights are in the cache and were compared with it.
    """
    import transformers

    pad, rows = model_config.pad_token_id, model_config.vocab_size
    grows = pad == rows == tokenizer_size - 1  # by one row, for the padding token that was added
    if tokenizer_size > rows and not grows:
        raise ConfigError(
            f"model.tokenizer has {tokenizer_size} tokens and the model {rows}; use the model's "
            f"tokenizer"
        )
    if grows:
        model_config.pad_token_id = None  # an embedding without that row would refuse it
    transformers.logging.set_verbosity_error()
    if not fetch_only:  # which may take long
        transformers.logging.disable_progress_bar()
    auto = getattr(transformers, auto_model)
    dtype = torch.float32 if mode == "full" else frozen_dtype
    torch.manual_seed(seed)
    fresh: list[str] = []
    if shape_only or (fetch_only and model.initialization == "random"):
        with torch.device("meta"):
            built = from_numbers(auto, model, model_config).to(dtype)
    elif model.initialization == "random":
        built = from_numbers(auto, model, model_config).to(dtype)
        fresh = ["*"]
        if mode in QUANTISED:
            with tempfile.TemporaryDirectory() as folder:
                # transformers' own save_pretrained writes on the first of several ranks only.
                save_model(built, f"{folder}/model.safetensors", metadata={"format": "pt"})
                built.config.save_pretrained(folder)
                built, _ = _from_pretrained(auto, folder, None, built.config, dtype, mode)
    else:
        name, revision = str(model.name_or_path), model.revision
        device = "meta" if fetch_only else None
        built, absent = _from_pretrained(auto, name, revision, model_config, dtype, mode, device)
        fresh = sorted({key.rpartition(".")[0] for key in absent})
    if grows:
        built.resize_token_embeddings(tokenizer_size, mean_resizing=not (shape_only or fetch_only))
        built.config.pad_token_id = pad
    return LoadedModel(built, head_modules(built), tuple(fresh))


def from_numbers(auto: Any, model: config.Model, model_config: Any) -> Any:
    """Returns the random model of a transformers class; raises ConfigError where none can be."""
    try:
        return auto.from_config(model_config)
    except Exception as error:  # each family fails in its own way, as where heads do not divide
        key = "architecture" if model.architecture is not None else "name_or_path"
        reason = excerpt(" ".join(str(error).split()), 200)
        raise ConfigError(f"model.{key}: no model has such numbers: {reason}") from error


def head_modules(model: Any) -> tuple[str, ...]:
    """Returns the names of a transformers model's modules outside its backbone."""
    return tuple(
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    )


def unquantised_modules(model: Any) -> list[str]:
    """Returns the names of the modules that keep their precision in qlora and int8_lora."""
    # Names are compared in full: "pooler" alone would miss the layer in bert.pooler.dense.
    poolers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"]
    return [*head_modules(model), *poolers]


def _from_pretrained(
    auto: Any,
    name: str,
    revision: str | None,
    model_config: Any,
    dtype: torch.dtype,
    mode: str,
    device: str | None = None,
) -> tuple[Any, list[str]]:
    from safetensors import SafetensorError

    try:
        built, info = auto.from_pretrained(
            name,
            revision=revision,
            config=model_config,
            dtype=dtype,
            device_map=device,
            quantization_config=_quantisation(auto, model_config, dtype, mode),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below
            key_mapping=_other_names(auto, model_config),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(missing("model.name_or_path", name, "weights", error)) from error
    for key, stored, needed in sorted(info["mismatched_keys"]):
        raise ConfigError(
            f"model.name_or_path: {key} of {name} is {list(stored)} and this task needs "
            f"{list(needed)}; give as many labels, or name a model without this head"
        )
    # Else the names of what was loaded would be written, and transformers alone not find them.
    vars(built).pop("_weight_conversions", None)
    for module in built.modules():
        # Repacked for AVX512-BF16, an evaluation fails where a width is no multiple of its block.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return built, sorted(info["missing_keys"])


def _other_names(auto: Any, model_config: Any) -> dict[str, str] | None:
    """Returns patterns of names that a backbone has in some of its models, and its name in this.

    Span heads of Llama and others call it `transformer`, and all their other models `model`; loaded
    without a word, it would be random.
    """
    from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING, MODEL_MAPPING

    mappings: tuple[Any, ...] = (MODEL_MAPPING, MODEL_FOR_QUESTION_ANSWERING_MAPPING)
    kinds = [known.get(type(model_config), None) for known in (auto._model_mapping, *mappings)]
    own, *others = [getattr(kind, "base_model_prefix", "") for kind in kinds]
    names = {rf"^{other}\.": f"{own}." for other in others if own and other and other != own}
    return names or None


def _quantisation(auto: Any, model_config: Any, dtype: torch.dtype, mode: str) -> Any:
    """Returns the bitsandbytes settings of a mode; heads and poolers keep their precision."""
    if mode not in QUANTISED:
        return None
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):
        kept = unquantised_modules(auto.from_config(model_config))
    if mode == "int8_lora":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )
