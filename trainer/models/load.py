"""Models: pretrained, random from a name's shape, or from architecture numbers."""

import copy
import tempfile
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save_model

from trainer.errors import ConfigError
from trainer.models.pretrained import head_labels
from trainer.models.pretrained.checkpoint_fit import Checkpoint, look_at_checkpoint
from trainer.models.pretrained.model_folder import check_hub_adapter, check_quantisation, shown
from trainer.models.pretrained.weights import Names, check_values
from trainer.models.pretrained.weights import head_modules as head_modules
from trainer.models.tokenizers.tokenizer import missing
from trainer.models.tokenizers.vocabulary_size import grow_vocabulary
from trainer.recipe import schema
from trainer.wording import excerpt

QUANTISED = ("qlora", "int8_lora")


@dataclass(frozen=True)
class Base:
    """What loading a base again needs to know of it."""

    rows: int
    """Of its vocabulary, before new tokens."""
    key_mapping: dict[str, str] | None
    """Patterns of names in its files, and what they are in the model of the task."""
    renewed: bool = False
    """Whether its own head was put aside for a new one, which may have another size."""


@dataclass(frozen=True)
class LoadedModel:
    model: Any
    """A transformers model."""
    head: tuple[str, ...]
    """Names of its modules outside the backbone."""
    fresh: tuple[str, ...]
    """Names of modules without pretrained weights, which frozen would stay random."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know of the pretrained weights."""
    key_mapping: dict[str, str] | None = None
    """Patterns of names in the checkpoint, and what they are in the model."""
    renewed: bool = False
    """Whether the checkpoint had another head, for which a new one was drawn."""


def load_model(
    model: schema.Model,
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
    pretrained weights are in the cache and were compared with it. The vocabulary grows to
    `tokenizer_size` rows where it has fewer; the new ones are the mean of the others.
    """
    import transformers

    model_config = copy.deepcopy(model_config)
    pad, rows = model_config.pad_token_id, model_config.vocab_size
    if pad is not None and pad >= rows:
        model_config.pad_token_id = None  # an embedding without that row would refuse it
    transformers.logging.set_verbosity_error()
    if not fetch_only:  # which may take long
        transformers.logging.disable_progress_bar()
    auto = getattr(transformers, auto_model)
    dtype = torch.float32 if mode == "full" else frozen_dtype
    torch.manual_seed(seed)
    fresh: list[str] = []
    notes: list[str] = []
    key_mapping, renewed = None, False
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
        name = str(model.name_or_path)
        check_hub_adapter(name, model.revision)
        prefixes = _other_prefixes(auto, model_config)

        def read(key_mapping: dict[str, str] | None) -> tuple[Any, dict[str, Any]]:
            kind, at = torch.float32, model.revision
            return _from_pretrained(
                auto, name, at, model_config, kind, "full", device="meta", key_mapping=key_mapping
            )

        found = look_at_checkpoint(auto, model, model_config, read, prefixes)
        built, fresh, notes = found.model, [*found.fresh], [*found.notes]
        key_mapping, renewed = found.key_mapping, found.renewed
        if not fetch_only:
            built = _load_checkpoint(auto, model, model_config, found, dtype, mode, seed)
            notes += check_values(built, name, fresh)
    if tokenizer_size > rows:
        grow_vocabulary(built, tokenizer_size)
    built.config.pad_token_id = pad
    head = head_modules(built)
    return LoadedModel(built, head, tuple(fresh), tuple(notes), key_mapping, renewed)


def from_numbers(auto: Any, model: schema.Model, model_config: Any) -> Any:
    """Returns the random model of a transformers class; raises ConfigError where none can be."""
    try:
        return auto.from_config(model_config, trust_remote_code=False)
    except Exception as error:  # each family fails in its own way, as where heads do not divide
        key = "architecture" if model.architecture is not None else "name_or_path"
        reason = excerpt(" ".join(str(error).split()), 200)
        raise ConfigError(f"model.{key}: no model has such numbers: {reason}") from error


def unquantised_modules(model: Any) -> list[str]:
    """Returns the names of the modules that keep their precision in qlora and int8_lora."""
    # Names are compared in full: "pooler" alone would miss the layer in bert.pooler.dense.
    poolers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"]
    return [*head_modules(model), *poolers]


def _load_checkpoint(
    auto: Any,
    model: schema.Model,
    model_config: Any,
    found: Checkpoint,
    dtype: torch.dtype,
    mode: str,
    seed: int,
) -> Any:
    """Returns the model with its weights, and what is fresh in it drawn from `seed`."""
    name = str(model.name_or_path)
    check_quantisation(model_config, mode)
    torch.manual_seed(seed)
    built, info = _from_pretrained(
        auto, name, model.revision, model_config, dtype, mode, None, found.key_mapping
    )
    lost = sorted(Names.of(info).missing - found.names.missing)
    if lost:
        raise ConfigError(
            f"model.name_or_path: {len(lost):,} weights of {shown(name)} did not arrive, such as "
            f"{lost[0]}; download it again"
        )
    if found.renewed:
        head_labels.renew(built, found.head, seed)
    if found.rows is not None:
        head_labels.arrange_rows(built, auto, found.rows)
    return built


def _from_pretrained(
    auto: Any,
    name: str,
    revision: str | None,
    model_config: Any,
    dtype: torch.dtype,
    mode: str,
    device: str | None = None,
    key_mapping: dict[str, str] | None = None,
) -> tuple[Any, dict[str, Any]]:
    try:
        built, info = auto.from_pretrained(
            name,
            revision=revision,
            config=model_config,
            dtype=dtype,
            device_map=device,
            quantization_config=_quantisation(auto, model_config, dtype, mode),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused, or the head is new
            key_mapping=key_mapping,
            trust_remote_code=False,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged or hostile file: whatever its reader stumbles over
        raise ConfigError(missing("model.name_or_path", name, "weights", error)) from error
    # Else the names of what was loaded would be written, and transformers alone not find them.
    vars(built).pop("_weight_conversions", None)
    for module in built.modules():
        # Repacked for AVX512-BF16, an evaluation fails where a width is no multiple of its block.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return built, info


def _other_prefixes(auto: Any, model_config: Any) -> list[str]:
    """Returns what a class, the backbone itself and the span head call a backbone."""
    from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING, MODEL_MAPPING

    mappings: tuple[Any, ...] = (MODEL_MAPPING, MODEL_FOR_QUESTION_ANSWERING_MAPPING)
    kinds = [known.get(type(model_config), None) for known in (auto._model_mapping, *mappings)]
    return [getattr(kind, "base_model_prefix", "") for kind in kinds]


def _quantisation(auto: Any, model_config: Any, dtype: torch.dtype, mode: str) -> Any:
    """Returns the bitsandbytes settings of a mode; heads and poolers keep their precision."""
    if mode not in QUANTISED:
        return None
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):
        kept = unquantised_modules(auto.from_config(model_config, trust_remote_code=False))
    if mode == "int8_lora":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )
