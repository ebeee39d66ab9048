"""The model of a run: loaded and tuned, before any engine holds it."""

from dataclasses import dataclass

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from trainer.assembly.inputs import Inputs
from trainer.checkpoints.disk_space import CheckpointSize, checkpoint_size
from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.engines.zero3_start import load_on_main, starts_sharded
from trainer.errors import LaunchError
from trainer.models.load import Base, LoadedModel, ModelSpec, load_model, load_shape
from trainer.models.parameters import ParameterCounts, count_parameters, trainable_parameters
from trainer.models.tokenizers.own_tokens import new_tokens
from trainer.models.tokenizers.tokenizer import num_rows, pads_with_a_word
from trainer.models.tuning import apply_tuning
from trainer.recipe.schema import Recipe
from trainer.run import Baseline


@dataclass(frozen=True, kw_only=True)
class BuiltModel:
    """A tuned model, and what can only be known before an engine shards it."""

    model: nn.Module
    """On the CPU, or where bitsandbytes puts it. Under ZeRO-3 only the main process has weights;
    the other ranks have only their shapes, on the meta device."""
    base: Base
    baseline_kind: Baseline
    counts: ParameterCounts
    checkpoint_size: CheckpointSize
    notes: tuple[str, ...]
    """What a reader of the results should know about the model, a sentence each."""


def build_model(
    recipe: Recipe, inputs: Inputs, accelerator: Accelerator, precision: Precision
) -> BuiltModel:
    """Returns the model of a recipe, in which the parameters to train require gradients.

    Raises ConfigError if weights do not fit the recipe, and LaunchError if the engine cannot train
    what the tuning mode needs.
    """
    task, tokenizer = inputs.task, inputs.tokenizer
    loaded = _load(recipe, inputs, accelerator, COMPUTE_DTYPES[precision])
    base = Base(inputs.model_config.vocab_size, loaded.key_mapping, loaded.renewed)
    added = new_tokens(recipe.model, tokenizer, base.rows)
    if pads_with_a_word(tokenizer):
        loaded.model.get_input_embeddings().padding_idx = None  # otherwise the word cannot learn
    model = apply_tuning(
        loaded,
        recipe.tuning,
        trains_head=task.trains_head,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        new_tokens=added,
        revision=recipe.model.revision,
    )
    return BuiltModel(
        model=model,
        base=base,
        baseline_kind=_baseline_of(loaded),
        counts=count_parameters(model),
        checkpoint_size=checkpoint_size(trainable_parameters(model).values(), recipe.optimizer),
        notes=(
            *loaded.notes,
            *_notes_on_random_weights(recipe, inputs),
            *_notes_on_new_tokens(recipe, added, accelerator),
        ),
    )


def _load(
    recipe: Recipe, inputs: Inputs, accelerator: Accelerator, frozen_dtype: torch.dtype
) -> LoadedModel:
    spec = ModelSpec(
        recipe.model,
        inputs.model_config,
        auto_model=inputs.task.auto_model,
        tokenizer_size=num_rows(inputs.tokenizer),
        mode=recipe.tuning.mode,
        frozen_dtype=frozen_dtype,
        seed=recipe.seed,
    )

    def load(*, shape_only: bool = False) -> LoadedModel:
        return load_shape(spec) if shape_only else load_model(spec)

    return load_on_main(accelerator, load) if starts_sharded(accelerator, recipe) else load()


def _notes_on_random_weights(recipe: Recipe, inputs: Inputs) -> list[str]:
    notes: list[str] = []
    if recipe.tuning.mode != "full" and recipe.model.initialization == "random":
        notes.append("the frozen backbone is random: little can be learned on top of it")
    if getattr(recipe.task, "zero_shot", None) is not None and inputs.task.zero_shot is None:
        notes.append("no zero-shot: random weights have learned nothing")
    return notes


def _notes_on_new_tokens(recipe: Recipe, added: list[int], accelerator: Accelerator) -> list[str]:
    """Returns a note on how tokens that are new to the model are learned.

    Raises LaunchError if only the new rows of the vocabulary should learn and the engine shards it.
    """
    mode = recipe.tuning.mode
    if not added or mode == "full":
        return []
    if mode == "head_only":
        return [
            f"{len(added)} new tokens keep the mean of the others: head_only learns none of them"
        ]
    plugin = accelerator.deepspeed_plugin
    under_zero3 = plugin is not None and plugin.zero_stage == 3
    if under_zero3 or accelerator.distributed_type == DistributedType.FSDP:
        raise LaunchError(
            f"model.tokenizer: {len(added)} new tokens with tuning.mode: {mode} are learned row by "
            f"row, which a sharded vocabulary does not allow",
            key="model.tokenizer",
            value=recipe.model.tokenizer,
            hint="launch with accelerate_configs/ddp.yaml or zero2.yaml",
        )
    return [f"{len(added)} new tokens are learned together with the adapters"]


def _baseline_of(loaded: LoadedModel) -> Baseline:
    if "*" in loaded.fresh:
        return "random weights"
    return "untrained head" if loaded.fresh else "pretrained"
