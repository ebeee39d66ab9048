"""Loads models: pretrained, or random from the shape of one or from architecture numbers."""

import copy
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from trainer.errors import ConfigError
from trainer.models.output_layer import install_output_layer
from trainer.models.pretrained.not_loaded import not_loaded
from trainer.models.quiet import quiet_transformers
from trainer.models.structure import head_modules
from trainer.models.tokenizers.vocabulary_size import grow_vocabulary
from trainer.recipe.model import Model
from trainer.wording import reason_of

if TYPE_CHECKING:
    from trainer.models.pretrained.checkpoint_fit import CheckpointFit

QUANTISED = ("qlora", "int8_lora")
LANGUAGE_MODELS = ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForPreTraining")
"""Classes whose head scores the vocabulary."""


@dataclass(frozen=True)
class Base:
    """What is needed to load the base model of exported adapters."""

    rows: int
    """Rows of its vocabulary, before new tokens."""
    key_mapping: dict[str, str] | None
    """Patterns of names in its files, and what replaces them in the task's model."""
    renewed: bool = False
    """Whether its own head, which may have another size, was replaced by a new one."""


@dataclass(frozen=True)
class ModelSpec:
    """Which model to load, and how."""

    settings: Model
    """The section `model` of the recipe."""
    config: Any
    """Transformers configuration with the task's values. Loading does not change it."""
    auto_model: str
    """Name of a transformers auto class."""
    tokenizer_size: int
    """Rows that the vocabulary needs. If the model has fewer, it grows by their mean."""
    mode: str
    """Tuning mode, which decides about quantisation and about the type of the weights."""
    frozen_dtype: torch.dtype
    """Type of all weights, except that they are fp32 in mode full. `apply_tuning` converts those
    that are trained to fp32."""
    seed: int
    """Seed of the weights that are not pretrained."""

    @property
    def auto(self) -> Any:
        import transformers

        return getattr(transformers, self.auto_model)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.mode == "full" else self.frozen_dtype


@dataclass(frozen=True)
class LoadedModel:
    """A model before tuning, and where its weights come from."""

    model: Any
    """A transformers model."""
    head: tuple[str, ...]
    """Names of the modules outside the backbone."""
    fresh: tuple[str, ...]
    """Names of the modules without pretrained weights, which must be trained; ("*",) for all."""
    notes: tuple[str, ...] = ()
    """What the report says about the model, a clause each."""
    key_mapping: dict[str, str] | None = None
    """Patterns of names in the checkpoint, and what replaces them in the model."""
    renewed: bool = False
    """Whether a new head replaces the one in the checkpoint."""


def load_model(spec: ModelSpec) -> LoadedModel:
    """Returns a model with its weights, before any tuning.

    The model is on the CPU, or where bitsandbytes puts it if it is quantised. Seeds torch's
    generator. Raises ConfigError for a checkpoint that is damaged or does not fit the
    configuration.
    """
    with quiet_transformers():
        torch.manual_seed(spec.seed)
        if spec.settings.initialization == "random":
            return _finished(spec, _random_model(spec), fresh=("*",))
        fit = _compare(spec)
        return _pretrained(spec, _load_weights(spec, fit), fit, check=True)


def load_shape(spec: ModelSpec) -> LoadedModel:
    """Returns the model of `load_model` on the meta device, without reading any weights.

    Its `fresh` is always empty, because only the checkpoint tells which weights it has.
    """
    with quiet_transformers():
        with torch.device("meta"):
            model = from_numbers(spec.auto, spec.settings, _own_config(spec)).to(spec.dtype)
        return _finished(spec, model)


def fetch_model(spec: ModelSpec) -> LoadedModel:
    """Returns the model of `load_model` on the meta device, after fetching all files into the
    cache. Shows a progress bar.

    Raises ConfigError as `load_model` does, for everything but the values of weights.
    """
    if spec.settings.initialization == "random":
        return load_shape(spec)
    with quiet_transformers(progress_bar=True):
        fit = _compare(spec)
        return _pretrained(spec, fit.model, fit, check=False)


def from_numbers(auto: Any, settings: Model, config: Any) -> Any:
    """Returns a random model of an auto class; raises ConfigError if its numbers are impossible."""
    try:
        return auto.from_config(config, trust_remote_code=False)
    except Exception as error:  # each family fails in its own way, as for heads that do not divide
        key = "architecture" if settings.architecture is not None else "name_or_path"
        raise ConfigError(
            f"model.{key}: no model can be built with these numbers: {reason_of(error)}",
            key=f"model.{key}",
            value=getattr(settings, key),
        ) from error


def unquantised_modules(model: Any) -> list[str]:
    """Returns the names of the modules that qlora and int8_lora do not quantise: heads and poolers.

    Raises ConfigError if the backbone cannot be told from the head: nothing would be quantised.
    """
    # transformers compares full names: "pooler" would not match the layer bert.pooler.dense.
    poolers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"]
    return [*head_modules(model), *poolers]


def _own_config(spec: ModelSpec) -> Any:
    """Returns a copy of the configuration, without a padding token that has no row yet."""
    config = copy.deepcopy(spec.config)
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        config.pad_token_id = None  # set again by `_finished`, once the vocabulary has grown
    return config


def _finished(
    spec: ModelSpec,
    model: Any,
    *,
    fresh: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
    key_mapping: dict[str, str] | None = None,
    renewed: bool = False,
) -> LoadedModel:
    """Returns the model with its vocabulary grown to all rows, and its output layer replaced by one
    that can compute the loss."""
    if spec.tokenizer_size > spec.config.vocab_size:
        grow_vocabulary(model, spec.tokenizer_size)
    model.config.pad_token_id = spec.config.pad_token_id
    if spec.auto_model in LANGUAGE_MODELS:
        note = install_output_layer(model)
        notes += (note,) if note is not None else ()
    return LoadedModel(model, head_modules(model), fresh, notes, key_mapping, renewed)


def _random_model(spec: ModelSpec) -> Any:
    from safetensors.torch import save_model

    model = from_numbers(spec.auto, spec.settings, _own_config(spec)).to(spec.dtype)
    if spec.mode not in QUANTISED:
        return model
    # transformers quantises weights while it reads them from files.
    with tempfile.TemporaryDirectory() as folder:
        # Not by save_pretrained, which writes on the first of several ranks only.
        save_model(model, f"{folder}/model.safetensors", metadata={"format": "pt"})
        model.config.save_pretrained(folder)
        return _read(spec, model.config, folder=folder)[0]


def _compare(spec: ModelSpec) -> "CheckpointFit":
    """Returns how the checkpoint fits the model; reads names and shapes only."""
    from trainer.models.pretrained.checkpoint_fit import compare_with_checkpoint
    from trainer.models.pretrained.model_folder import check_hub_adapter

    check_hub_adapter(str(spec.settings.name_or_path), spec.settings.revision)
    config = _own_config(spec)

    def read(key_mapping: dict[str, str] | None) -> tuple[Any, dict[str, Any]]:
        return _read(spec, config, key_mapping=key_mapping, on_meta=True)

    prefixes = _prefixes(spec.auto, config)
    return compare_with_checkpoint(spec.auto, spec.settings, config, read, prefixes)


def _load_weights(spec: ModelSpec, fit: "CheckpointFit") -> Any:
    """Returns the model with the weights of its checkpoint; missing ones are drawn by the seed."""
    from trainer.models.pretrained import head_labels
    from trainer.models.pretrained.model_folder import check_quantisation, shown
    from trainer.models.pretrained.weights import Names

    config = _own_config(spec)
    check_quantisation(config, spec.mode)
    torch.manual_seed(spec.seed)
    model, info = _read(spec, config, key_mapping=fit.key_mapping)
    lost = sorted(Names.of(info).missing - fit.names.missing)
    if lost:
        raise ConfigError(
            f"model.name_or_path: {len(lost):,} weights of {shown(spec.settings.name_or_path)} "
            f"could not be read, such as {lost[0]}",
            key="model.name_or_path",
            value=spec.settings.name_or_path,
            hint="download it again",
        )
    if fit.renewed:
        head_labels.renew(model, fit.model, fit.head, spec.seed)
    if fit.rows is not None:
        head_labels.arrange_rows(model, spec.auto, fit.rows)
    return model


def _pretrained(spec: ModelSpec, model: Any, fit: "CheckpointFit", *, check: bool) -> LoadedModel:
    """Returns the finished pretrained model; `check` says whether to check the weights' values."""
    from trainer.models.pretrained.weights import check_values

    notes = fit.notes
    if check:
        notes += tuple(check_values(model, str(spec.settings.name_or_path), fit.fresh))
    return _finished(
        spec,
        model,
        fresh=fit.fresh,
        notes=notes,
        key_mapping=fit.key_mapping,
        renewed=fit.renewed,
    )


def _read(
    spec: ModelSpec,
    config: Any,
    *,
    folder: str | None = None,
    key_mapping: dict[str, str] | None = None,
    on_meta: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Returns a model from its checkpoint, or from `folder`, and transformers' loading info.

    On the meta device the weights have no values and are not quantised.
    """
    name = folder or str(spec.settings.name_or_path)
    try:
        model, info = spec.auto.from_pretrained(
            name,
            revision=spec.settings.revision if folder is None else None,
            config=config,
            dtype=torch.float32 if on_meta else spec.dtype,
            device_map="meta" if on_meta else None,
            quantization_config=None if on_meta else _quantisation(spec, config),
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # checked before, or a new head replaces them
            key_mapping=key_mapping,
            trust_remote_code=False,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except ConfigError:
        raise
    except Exception as error:  # a damaged or hostile file can raise anything
        raise not_loaded("model.name_or_path", name, "weights", error) from error
    # Otherwise transformers exports the weights under the checkpoint's names, and cannot load them
    # without the key mapping.
    vars(model).pop("_weight_conversions", None)
    for module in model.modules():
        # bitsandbytes' packing for AVX512-BF16 fails in evaluation if its block size does not
        # divide the width of the layer.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model, info


def _prefixes(auto: Any, config: Any) -> list[str]:
    """Returns the name of the backbone in a class, in itself, and in a model with a span head."""
    from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING, MODEL_MAPPING

    mappings: tuple[Any, ...] = (MODEL_MAPPING, MODEL_FOR_QUESTION_ANSWERING_MAPPING)
    classes = [mapping.get(type(config), None) for mapping in (auto._model_mapping, *mappings)]
    return [getattr(model_class, "base_model_prefix", "") for model_class in classes]


def _quantisation(spec: ModelSpec, config: Any) -> Any:
    """Returns the bitsandbytes settings of the tuning mode, None if it does not quantise."""
    if spec.mode not in QUANTISED:
        return None
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):
        skipped = unquantised_modules(spec.auto.from_config(config, trust_remote_code=False))
    if spec.mode == "int8_lora":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=spec.dtype,
        llm_int8_skip_modules=skipped,
    )
