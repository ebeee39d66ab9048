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
from trainer.wording import excerpt

if TYPE_CHECKING:
    from trainer.models.pretrained.checkpoint_fit import Checkpoint

QUANTISED = ("qlora", "int8_lora")
LANGUAGE_MODELS = ("AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForPreTraining")
"""Classes whose head scores the vocabulary."""


@dataclass(frozen=True)
class Base:
    """What it takes to load the base of adapters again."""

    rows: int
    """Rows of its vocabulary, before new tokens."""
    key_mapping: dict[str, str] | None
    """Patterns of names in its files, and what replaces them in the model of the task."""
    renewed: bool = False
    """Whether its own head, which may have another size, was replaced by a new one."""


@dataclass(frozen=True)
class ModelSpec:
    """What to load, and how."""

    settings: Model
    config: Any
    """Configuration of transformers with the values of the task; loading leaves it as it is."""
    auto_model: str
    """Name of the auto class of transformers."""
    tokenizer_size: int
    """Rows that the vocabulary needs; it grows by rows that are the mean of the others."""
    mode: str
    """Tuning mode. It decides about quantisation, and that all weights are fp32 in full tuning."""
    frozen_dtype: torch.dtype
    """Type of the weights in modes other than full; what learns becomes fp32 in `apply_tuning`."""
    seed: int
    """Decides the weights that are not pretrained."""

    @property
    def auto(self) -> Any:
        import transformers

        return getattr(transformers, self.auto_model)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.mode == "full" else self.frozen_dtype


@dataclass(frozen=True)
class LoadedModel:
    model: Any
    """A transformers model."""
    head: tuple[str, ...]
    """Names of its modules outside the backbone."""
    fresh: tuple[str, ...]
    """Names of modules without pretrained weights, which would stay random if frozen; `*` for all
    of them."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know about the model, a sentence each."""
    key_mapping: dict[str, str] | None = None
    """Patterns of names in the checkpoint, and what replaces them in the model."""
    renewed: bool = False
    """Whether the checkpoint has a head for which a new one was drawn."""


def load_model(spec: ModelSpec) -> LoadedModel:
    """Returns a model with its weights, before any tuning.

    It is on the CPU; a quantised one is where bitsandbytes puts it. Seeds torch's generator. Raises
    ConfigError for a checkpoint that is damaged or does not fit the configuration.
    """
    with quiet_transformers():
        torch.manual_seed(spec.seed)
        if spec.settings.initialization == "random":
            return _finished(spec, _random_model(spec), fresh=("*",))
        checkpoint = _look(spec)
        model = _load_checkpoint(spec, checkpoint)
        return _of_checkpoint(spec, model, checkpoint, check=True)


def load_shape(spec: ModelSpec) -> LoadedModel:
    """Returns what `load_model` does on the meta device, without reading any weights.

    What is fresh in it is not known.
    """
    with quiet_transformers():
        with torch.device("meta"):
            model = from_numbers(spec.auto, spec.settings, _own_config(spec)).to(spec.dtype)
        return _finished(spec, model)


def fetch_model(spec: ModelSpec) -> LoadedModel:
    """Returns what `load_model` does on the meta device, after fetching all files into the cache.

    Compares names and shapes in the files with the model's, and raises ConfigError as `load_model`
    does. Shows a progress bar.
    """
    if spec.settings.initialization == "random":
        return load_shape(spec)
    with quiet_transformers(progress_bar=True):
        checkpoint = _look(spec)
        return _of_checkpoint(spec, checkpoint.model, checkpoint, check=False)


def from_numbers(auto: Any, settings: Model, config: Any) -> Any:
    """Returns a random model of an auto class; raises ConfigError for numbers that give none."""
    try:
        return auto.from_config(config, trust_remote_code=False)
    except Exception as error:  # families fail in their own ways, such as if heads do not divide
        key = "architecture" if settings.architecture is not None else "name_or_path"
        reason = excerpt(" ".join(str(error).split()), 200)
        raise ConfigError(
            f"model.{key}: no model has such numbers: {reason}",
            key=f"model.{key}",
            value=getattr(settings, key),
        ) from error


def unquantised_modules(model: Any) -> list[str]:
    """Returns the names of the modules that keep their precision in qlora and int8_lora.

    Raises ConfigError if no backbone can be told from the head: nothing would be quantised.
    """
    # Names are compared in full: "pooler" alone would miss the layer in bert.pooler.dense.
    poolers = [name for name, _ in model.named_modules() if name.rpartition(".")[2] == "pooler"]
    return [*head_modules(model), *poolers]


def _own_config(spec: ModelSpec) -> Any:
    """Returns a copy of the configuration whose padding token has a row in the embedding."""
    config = copy.deepcopy(spec.config)
    if config.pad_token_id is not None and config.pad_token_id >= config.vocab_size:
        config.pad_token_id = None  # until the vocabulary has grown
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
    """Returns a model whose vocabulary has all rows and whose output layer computes the loss."""
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
    with tempfile.TemporaryDirectory() as folder:  # transformers quantises while it reads files
        # Of several ranks, transformers' own save_pretrained writes on the first only.
        save_model(model, f"{folder}/model.safetensors", metadata={"format": "pt"})
        model.config.save_pretrained(folder)
        return _read(spec, model.config, folder=folder)[0]


def _look(spec: ModelSpec) -> "Checkpoint":
    """Returns the pretrained model on the meta device, and how its names fit its checkpoint's."""
    from trainer.models.pretrained.checkpoint_fit import look_at_checkpoint
    from trainer.models.pretrained.model_folder import check_hub_adapter

    check_hub_adapter(str(spec.settings.name_or_path), spec.settings.revision)
    config = _own_config(spec)

    def read(key_mapping: dict[str, str] | None) -> tuple[Any, dict[str, Any]]:
        return _read(spec, config, key_mapping=key_mapping, on_meta=True)

    return look_at_checkpoint(spec.auto, spec.settings, config, read, _prefixes(spec.auto, config))


def _load_checkpoint(spec: ModelSpec, checkpoint: "Checkpoint") -> Any:
    """Returns the pretrained model with its weights; what is fresh in it is drawn from the seed."""
    from trainer.models.pretrained import head_labels
    from trainer.models.pretrained.model_folder import check_quantisation, shown
    from trainer.models.pretrained.weights import Names

    config = _own_config(spec)
    check_quantisation(config, spec.mode)
    torch.manual_seed(spec.seed)
    model, info = _read(spec, config, key_mapping=checkpoint.key_mapping)
    lost = sorted(Names.of(info).missing - checkpoint.names.missing)
    if lost:
        raise ConfigError(
            f"model.name_or_path: {len(lost):,} weights of {shown(spec.settings.name_or_path)} did "
            f"not arrive, such as {lost[0]}",
            key="model.name_or_path",
            value=spec.settings.name_or_path,
            hint="download it again",
        )
    if checkpoint.renewed:
        head_labels.renew(model, checkpoint.head, spec.seed)
    if checkpoint.rows is not None:
        head_labels.arrange_rows(model, spec.auto, checkpoint.rows)
    return model


def _of_checkpoint(
    spec: ModelSpec, model: Any, checkpoint: "Checkpoint", *, check: bool
) -> LoadedModel:
    from trainer.models.pretrained.weights import check_values

    notes = checkpoint.notes
    if check:
        notes += tuple(check_values(model, str(spec.settings.name_or_path), checkpoint.fresh))
    return _finished(
        spec,
        model,
        fresh=checkpoint.fresh,
        notes=notes,
        key_mapping=checkpoint.key_mapping,
        renewed=checkpoint.renewed,
    )


def _read(
    spec: ModelSpec,
    config: Any,
    *,
    folder: str | None = None,
    key_mapping: dict[str, str] | None = None,
    on_meta: bool = False,
) -> tuple[Any, dict[str, Any]]:
    """Returns a model from its checkpoint, or from a folder, and what transformers says of names.

    On the meta device the weights have names and shapes only, and are not quantised.
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
            ignore_mismatched_sizes=True,  # they are refused, or the head is new
            key_mapping=key_mapping,
            trust_remote_code=False,
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except ConfigError:
        raise
    except Exception as error:  # a damaged or hostile file can fail anywhere in its reader
        raise not_loaded("model.name_or_path", name, "weights", error) from error
    # transformers would write the names of the files that it read, and not find them by itself.
    vars(model).pop("_weight_conversions", None)
    for module in model.modules():
        # Packed for AVX512-BF16, a width that its block does not divide fails in evaluation.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model, info


def _prefixes(auto: Any, config: Any) -> list[str]:
    """Returns what a class, the backbone itself and the span head call a backbone."""
    from transformers import MODEL_FOR_QUESTION_ANSWERING_MAPPING, MODEL_MAPPING

    mappings: tuple[Any, ...] = (MODEL_MAPPING, MODEL_FOR_QUESTION_ANSWERING_MAPPING)
    kinds = [known.get(type(config), None) for known in (auto._model_mapping, *mappings)]
    return [getattr(kind, "base_model_prefix", "") for kind in kinds]


def _quantisation(spec: ModelSpec, config: Any) -> Any:
    """Returns the bitsandbytes settings of a mode; heads and poolers keep their precision."""
    if spec.mode not in QUANTISED:
        return None
    from transformers import BitsAndBytesConfig

    with torch.device("meta"):
        kept = unquantised_modules(spec.auto.from_config(config, trust_remote_code=False))
    if spec.mode == "int8_lora":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=spec.dtype,
        llm_int8_skip_modules=kept,
    )
