"""From a recipe to a Run: the one place where recipe, data, model and engine meet."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from trainer.assembly.inputs import build_inputs, digest_of_rows
from trainer.assembly.memory_advice import recipe_memory
from trainer.checkpoints.disk_space import checkpoint_size
from trainer.checkpoints.provenance import made_with
from trainer.checkpoints.save import Saver
from trainer.checkpoints.store import CheckpointStore
from trainer.distributed.collectives import any_rank
from trainer.engines.accelerator import check_engine, prepare
from trainer.engines.micro_batch import resolve_micro_batch_size
from trainer.engines.precision import COMPUTE_DTYPES, resolve_precision
from trainer.engines.sharding import sharding, whole_weight
from trainer.engines.zero3_start import load_on_main, make_room, shard_from_main, starts_sharded
from trainer.errors import ConfigError, LaunchError
from trainer.files.cache import content_key
from trainer.models.export import dense_weight, packed_layer
from trainer.models.load import QUANTISED, Base, LoadedModel, load_model
from trainer.models.parameters import count_parameters, trainable_parameters
from trainer.models.positions import num_positions
from trainer.models.speedups.dropout import speed_up_dropout
from trainer.models.speedups.first_token import compute_first_token_alone
from trainer.models.speedups.row_gradients import use_row_gradients
from trainer.models.tokenizers.own_tokens import new_tokens
from trainer.models.tokenizers.tokenizer import num_rows, pads_with_a_word
from trainer.models.tuning import apply_tuning
from trainer.optim import build_optimizer
from trainer.order import DataOrder
from trainer.process.stop_request import StopRequest
from trainer.recipe.schema import Recipe
from trainer.run import Baseline, Run
from trainer.schedule import total_steps
from trainer.tasks.base import Objective
from trainer.tracking.progress import Progress
from trainer.tracking.rank_times import RankTimes
from trainer.tracking.tracker import Tracker

if TYPE_CHECKING:
    from datasets import Dataset


def build_run(
    recipe: Recipe,
    accelerator: Accelerator,
    directory: Path,
    stop: StopRequest | None = None,
    *,
    progress: Progress | None = None,
    other_rows: "Mapping[str, Dataset] | None" = None,
) -> Run:
    """Returns the run of a recipe in a directory, at step 0, with the same weights on every rank.

    `progress` is called with what it has to report; `other_rows` are splits beside the recipe's.

    Raises ConfigError and DataError for whatever in recipe and data cannot go together.
    """
    micro_batch_size = resolve_micro_batch_size(
        recipe.batch.global_batch_size, recipe.batch.micro_batch_size, accelerator.num_processes
    )
    precision = resolve_precision(recipe.precision)
    if recipe.tuning.mode in QUANTISED and recipe.tuning.bias != "none" and precision != "fp32":
        raise ConfigError(
            f"tuning.bias: {recipe.tuning.bias} with {recipe.tuning.mode}: in {precision} "
            f"bitsandbytes rounds trained biases; use none, or precision: fp32"
        )
    with recipe_memory(recipe, "data", "preparing the data"):
        inputs = build_inputs(recipe, directory, other_rows)
    task, tokenizer, splits = inputs.task, inputs.tokenizer, inputs.splits
    notes = [*inputs.notes]

    def load(*, shape_only: bool = False) -> LoadedModel:
        return load_model(
            recipe.model,
            inputs.model_config,
            auto_model=task.auto_model,
            tokenizer_size=num_rows(tokenizer),
            mode=recipe.tuning.mode,
            frozen_dtype=COMPUTE_DTYPES[precision],
            seed=recipe.seed,
            shape_only=shape_only,
        )

    sharded = starts_sharded(accelerator, recipe)
    loaded = load_on_main(accelerator, load) if sharded else load()
    notes += loaded.notes
    if recipe.tuning.mode != "full" and recipe.model.initialization == "random":
        notes.append("the frozen backbone is random: little can be learned on top of it")
    if getattr(recipe.task, "zero_shot", None) is not None and task.zero_shot is None:
        notes.append("no zero-shot: random weights have learned nothing")
    base_rows: int = inputs.model_config.vocab_size
    new = new_tokens(recipe.model, tokenizer, base_rows)
    notes += _notes_on_tokens(recipe, new, accelerator)
    if pads_with_a_word(tokenizer):
        loaded.model.get_input_embeddings().padding_idx = None  # else that word would not learn
    model = apply_tuning(
        loaded,
        recipe.tuning,
        trains_head=task.trains_head,
        gradient_checkpointing=recipe.model.gradient_checkpointing,
        new_tokens=new,
        revision=recipe.model.revision,
    )
    if accelerator.device.type == "cpu":
        speed_up_dropout(model)
    if task.reads_logits_alone:
        compute_first_token_alone(loaded.model)
    counts = count_parameters(model)
    size = checkpoint_size(trainable_parameters(model).values(), recipe.optimizer)
    objective = Objective(model, task)
    if accelerator.distributed_type != DistributedType.DEEPSPEED:  # which casts before it moves
        objective.to(accelerator.device)
    if sharded:
        make_room(accelerator, objective, COMPUTE_DTYPES[precision])
    made = build_optimizer(trainable_parameters(model), recipe.optimizer)
    if sharded:
        shard_from_main(accelerator, objective)
    canary = packed_layer(model)
    before = None if canary is None else dense_weight(canary).float().cpu()
    objective, optimizer = prepare(accelerator, objective, made)
    if canary is not None and before is not None:
        with whole_weight(objective, canary.weight):
            same = torch.equal(dense_weight(canary).float().cpu(), before)
        if any_rank(accelerator, not same):
            raise LaunchError(
                f"the engine changed weights that are stored in {recipe.tuning.mode}; launch with "
                f"accelerate_configs/ddp.yaml"
            )
    check_engine(
        accelerator,
        objective,
        optimizer,
        micro_batch_size=micro_batch_size,
        recipe=recipe,
        precision=precision,
        made=made,
    )

    train = splits["train"]
    if accelerator.device.type == "cpu" and accelerator.distributed_type == DistributedType.NO:
        tokens_per_step = recipe.batch.global_batch_size * train.lengths.mean()
        use_row_gradients(model, made, tokens_per_step=tokens_per_step)
    order = DataOrder(
        seed=recipe.seed,
        lengths=train.lengths,
        global_batch_size=recipe.batch.global_batch_size,
        length_bucketing=recipe.data.length_bucketing,
    )
    num_steps = total_steps(recipe.schedule, order.steps_per_epoch)
    weights = [term.weight for term in task.loss_terms]
    store = CheckpointStore(directory / "checkpoints")
    # Names without the engine's and the objective's wrapping, in checkpoints as in memory.
    parameters = trainable_parameters(model)
    order_digest = content_key(order=order.digest(), rows=digest_of_rows(train.rows, recipe))
    tracker = Tracker(
        accelerator, directory / "metrics.jsonl", num_steps=num_steps, progress=progress
    )
    launch = {
        "processes": accelerator.num_processes,
        "precision": precision,
        "sharding": sharding(objective),
    }
    return Run(
        recipe=recipe,
        directory=directory,
        task=task,
        tokenizer=tokenizer,
        base=Base(base_rows, loaded.key_mapping, loaded.renewed),
        num_positions=num_positions(inputs.model_config),
        splits=splits,
        order=order,
        order_digest=order_digest,
        model=model,
        objective=objective,
        optimizer=optimizer,
        parameters=parameters,
        counts=counts,
        baseline_is=_baseline_of(loaded),
        term_weights=torch.tensor(weights, dtype=torch.float64, device=accelerator.device),
        micro_batch_size=micro_batch_size,
        num_steps=num_steps,
        precision=precision,
        launch=launch,
        store=store,
        checkpoint_size=size,
        saver=Saver(
            accelerator,
            store,
            size,
            settings=recipe.checkpoint,
            objective=objective,
            optimizer=optimizer,
            parameters=parameters,
            scaler=accelerator.scaler,
            facts={
                "order_digest": order_digest,
                "launch": launch,
                **made_with(recipe, splits),
            },
            metrics=tracker.remembered,
        ),
        stop=stop or StopRequest(),
        tracker=tracker,
        rank_times=RankTimes(accelerator),
        scaler=accelerator.scaler,
        notes=tuple(notes),
    )


def _notes_on_tokens(recipe: Recipe, new: list[int], accelerator: Accelerator) -> list[str]:
    """Returns what is to be said of tokens that the model has not seen; refuses what fails."""
    mode = recipe.tuning.mode
    if not new or mode == "full":
        return []
    if mode == "head_only":
        return [f"{len(new)} new tokens keep the mean of the others: head_only learns none of them"]
    plugin: Any = accelerator.deepspeed_plugin
    in_shards = plugin is not None and plugin.zero_stage == 3
    if in_shards or accelerator.distributed_type == DistributedType.FSDP:
        raise LaunchError(
            f"model.tokenizer: {len(new)} new tokens with tuning.mode: {mode} are learned row by "
            f"row, which a sharded vocabulary is not; launch with accelerate_configs/ddp.yaml or "
            f"zero2.yaml"
        )
    return [f"{len(new)} new tokens learn beside the adapters"]


def _baseline_of(loaded: LoadedModel) -> Baseline:
    if "*" in loaded.fresh:
        return "random weights"
    return "untrained head" if loaded.fresh else "pretrained"
