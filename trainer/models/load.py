"""Models: pretrained, random from a name's shape, or from architecture numbers."""

import difflib
import tempfile
from dataclasses import dataclass
from typing import Any

import torch

from trainer import config
from trainer.errors import ConfigError
from trainer.models.tokenizer import ensure_pad_token, missing

QUANTISED = ("qlora", "int8_lora")


@dataclass(frozen=True)
class LoadedModel:
    model: Any
    """A transformers model."""
    head: tuple[str, ...]
    """Names of its modules outside the backbone."""
    fresh: tuple[str, ...]
    """Names of modules without pretrained weights, which frozen would stay random."""


def build_model_config(model: config.Model, tokenizer: Any) -> Any:
    """Returns the transformers configuration, with a padding token.

    Raises ConfigError for what is missing or unknown in it.
    """
    from transformers import AutoConfig

    if model.architecture is not None:
        made = _from_architecture(model.architecture, tokenizer)
    else:
        assert model.name_or_path is not None
        try:
            made = AutoConfig.from_pretrained(model.name_or_path, revision=model.revision)
        except (OSError, ValueError) as error:
            sentence = missing("model.name_or_path", model.name_or_path, "configuration")
            raise ConfigError(sentence) from error
    ensure_pad_token(tokenizer, made.vocab_size)
    made.pad_token_id = tokenizer.pad_token_id
    types = ["token_type_ids"] if getattr(made, "type_vocab_size", 0) > 1 else []
    tokenizer.model_input_names = ["input_ids", *types, "attention_mask"]
    tokenizer.init_kwargs["model_input_names"] = tokenizer.model_input_names  # else not exported
    return made


def check_length(model_config: Any, max_seq_length: int) -> None:
    """Raises ConfigError where the sequences are longer than the model has positions."""
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is None:
        return
    if model_config.model_type in ("roberta", "xlm-roberta", "camembert"):
        positions -= model_config.pad_token_id + 1  # positions start after the padding index
    if max_seq_length > positions:
        raise ConfigError(
            f"batch.max_seq_length: {max_seq_length} is more than the {positions} positions of the "
            f"model; use {positions} or less"
        )


def load_model(
    model: config.Model,
    model_config: Any,
    *,
    auto_model: str,
    tokenizer_size: int,
    mode: str,
    frozen_dtype: torch.dtype,
    seed: int,
) -> LoadedModel:
    """Returns the model on the CPU, or where a quantised one is put, before any tuning.

    Weights that learn are fp32; the others of adapter and head-only modes are `frozen_dtype`.
    What is not pretrained is drawn from `seed`.
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
    transformers.logging.disable_progress_bar()
    auto = getattr(transformers, auto_model)
    dtype = torch.float32 if mode == "full" else frozen_dtype
    torch.manual_seed(seed)
    if model.initialization == "random":
        try:
            built = auto.from_config(model_config).to(dtype)
        except (ValueError, KeyError) as error:  # such as heads that do not divide the width
            key = "architecture" if model.architecture is not None else "name_or_path"
            raise ConfigError(f"model.{key}: no model has such numbers: {error}") from error
        fresh: list[str] = ["*"]
        if mode in QUANTISED:
            with tempfile.TemporaryDirectory() as folder:
                built.save_pretrained(folder)
                built, _ = _from_pretrained(auto, folder, None, built.config, dtype, mode)
    else:
        name, revision = str(model.name_or_path), model.revision
        built, absent = _from_pretrained(auto, name, revision, model_config, dtype, mode)
        fresh = sorted({key.rpartition(".")[0] for key in absent})
    if grows:
        built.resize_token_embeddings(tokenizer_size)
        built.config.pad_token_id = pad
    return LoadedModel(built, head_modules(built), tuple(fresh))


def head_modules(model: Any) -> tuple[str, ...]:
    """Returns the names of a transformers model's modules outside its backbone."""
    return tuple(
        name
        for name, module in model.named_children()
        if name != model.base_model_prefix and any(True for _ in module.parameters())
    )


def _from_pretrained(
    auto: Any, name: str, revision: str | None, model_config: Any, dtype: torch.dtype, mode: str
) -> tuple[Any, list[str]]:
    from safetensors import SafetensorError

    try:
        built, info = auto.from_pretrained(
            name,
            revision=revision,
            config=model_config,
            dtype=dtype,
            quantization_config=_quantisation(auto, model_config, dtype, mode),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below
            key_mapping=_other_names(auto, model_config),
        )
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(missing("model.name_or_path", name, "weights")) from error
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
        empty = auto.from_config(model_config)
    # Names are compared in full: "pooler" alone would miss the layer in bert.pooler.dense.
    poolers = [name for name, _ in empty.named_modules() if name.rpartition(".")[2] == "pooler"]
    kept = [*head_modules(empty), *poolers]
    if mode == "int8_lora":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


def _from_architecture(numbers: dict[str, Any], tokenizer: Any) -> Any:
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    numbers = dict(numbers)
    kind = numbers.pop("model_type")
    if kind not in CONFIG_MAPPING:
        near = difflib.get_close_matches(kind, list(CONFIG_MAPPING), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"model.architecture.model_type: there is no {kind}{hint}")
    known = CONFIG_MAPPING[kind]()
    for name in numbers:
        if not hasattr(known, name):
            near = difflib.get_close_matches(name, list(vars(known)), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"model.architecture.{name}: a {kind} has no such number{hint}")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos")}
    ensure_pad_token(tokenizer, len(tokenizer) + 1)
    values: dict[str, Any] = {"vocab_size": len(tokenizer), **ids, **numbers}
    try:
        return CONFIG_MAPPING[kind](**values)
    except (StrictDataclassError, ValueError, KeyError) as error:
        raise ConfigError(f"model.architecture: {' '.join(str(error).split())}") from error
