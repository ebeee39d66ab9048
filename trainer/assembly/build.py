"""From a recipe to a Run: the one place where recipe, data, model and engine meet."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from trainer.assembly.columns_read import digest_of_rows
from trainer.assembly.engine import start_engine
from trainer.assembly.inputs import Inputs, build_inputs
from trainer.assembly.memory_advice import recipe_memory
from trainer.assembly.model import build_model
from trainer.checkpoints.provenance import provenance_of
from trainer.checkpoints.save import Saver
from trainer.checkpoints.store import CheckpointStore
from trainer.engines.deepspeed import fill_in_batch
from trainer.engines.micro_batch import resolve_micro_batch_size
from trainer.engines.precision import Precision, resolve_precision
from trainer.engines.sharding import sharding_of
from trainer.engines.topology import Topology, topology_of
from trainer.errors import ConfigError
from trainer.files.cache import content_key
from trainer.models.load import QUANTISED
from trainer.models.positions import num_positions
from trainer.order import DataOrder
from trainer.process.stop_request import StopRequest
from trainer.recipe.schema import Recipe
from trainer.recipe.tuning import AdapterTuning, Tuning
from trainer.run import Run
from trainer.schedule import total_steps
from trainer.tracking.progress import Progress
from trainer.tracking.rank_times import RankTimes
from trainer.tracking.tracker import Tracker

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class Launch:
    """What the launch decides: how a step is computed, but not what is learned."""

    precision: Precision
    micro_batch_size: int
    """Number of examples in a micro-batch of one data-parallel rank."""


def build_run(
    recipe: Recipe,
    accelerator: Accelerator,
    directory: Path,
    stop: StopRequest | None = None,
    *,
    progress: Progress | None = None,
    other_rows: "Mapping[str, Dataset] | None" = None,
    keeps_tokenizer: bool = True,
    inputs: Inputs | None = None,
    micro_batch_size: int | None = None,
) -> Run:
    """Returns the run of a recipe in a directory, at step 0, with the same weights on every rank.

    `progress` is called with what the run reports; `other_rows` are splits in addition to the
    recipe's. The directory gets the tokenizer that the run trains, if `keeps_tokenizer`, and
    nothing else. `inputs` are those of the run if they are built already; `micro_batch_size`
    replaces the recipe's. Raises ConfigError or DataError if recipe, data and model do not fit
    together, and LaunchError if the engine cannot train the recipe.
    """
    topology = topology_of(accelerator)
    launch = resolve_launch(recipe, topology, micro_batch_size)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        fill_in_batch(accelerator, recipe, launch.micro_batch_size)
    if inputs is None:
        with recipe_memory(recipe, "data", "preparing the data"):
            inputs = build_inputs(recipe, directory if keeps_tokenizer else None, other_rows)
    train = inputs.splits["train"]
    built = build_model(recipe, inputs, accelerator, launch.precision)
    engine = start_engine(
        built.model,
        inputs.task,
        recipe,
        accelerator,
        precision=launch.precision,
        micro_batch_size=launch.micro_batch_size,
        tokens_per_step=recipe.batch.global_batch_size * float(train.lengths.mean()),
    )
    order = DataOrder(
        seed=recipe.seed,
        lengths=train.lengths,
        global_batch_size=recipe.batch.global_batch_size,
        length_bucketing=recipe.data.length_bucketing,
    )
    order_digest = content_key(order=order.digest(), rows=digest_of_rows(train.rows, recipe))
    num_steps = total_steps(recipe.schedule, order.steps_per_epoch)
    weights = [term.weight for term in inputs.task.loss_terms]
    launch_facts = {
        "processes": accelerator.num_processes,
        "precision": launch.precision,
        "micro_batch_size": launch.micro_batch_size,
        "sharding": sharding_of(engine.objective).value,
    }
    store = CheckpointStore(directory / "checkpoints")
    tracker = Tracker(
        accelerator,
        directory / "metrics.jsonl",
        num_steps=num_steps,
        progress=progress,
        deciding_metric=recipe.evaluation.metric,
    )
    saver = Saver(
        accelerator,
        store,
        built.checkpoint_size,
        settings=recipe.checkpoint,
        objective=engine.objective,
        optimizer=engine.optimizer,
        parameters=engine.parameters,
        scaler=accelerator.scaler,
        facts={
            "order_digest": order_digest,
            "launch": launch_facts,
            **provenance_of(recipe, inputs.splits),
        },
        metrics=tracker.remembered,
    )
    return Run(
        recipe=recipe,
        directory=directory,
        precision=launch.precision,
        micro_batch_size=launch.micro_batch_size,
        topology=topology,
        launch_facts=launch_facts,
        task=inputs.task,
        tokenizer=inputs.tokenizer,
        splits=inputs.splits,
        order=order,
        order_digest=order_digest,
        num_steps=num_steps,
        term_weights=torch.tensor(weights, dtype=torch.float64, device=accelerator.device),
        model=built.model,
        base=built.base,
        num_positions=num_positions(inputs.model_config),
        parameters=engine.parameters,
        parameter_counts=built.counts,
        baseline_kind=built.baseline_kind,
        objective=engine.objective,
        optimizer=engine.optimizer,
        store=store,
        checkpoint_size=built.checkpoint_size,
        saver=saver,
        stop=stop or StopRequest(),
        tracker=tracker,
        rank_times=RankTimes(accelerator),
        notes=(*inputs.notes, *built.notes),
    )


def resolve_launch(
    recipe: Recipe, topology: Topology, micro_batch_size: int | None = None
) -> Launch:
    """Returns the precision and micro-batch size of a recipe on these ranks and this device.

    `micro_batch_size` replaces the recipe's. Raises ConfigError if the batch does not divide by
    them, if the device lacks the precision, or if settings contradict each other in that precision.
    """
    batch, tuning = recipe.batch, recipe.tuning
    micro_batch_size = resolve_micro_batch_size(
        batch.global_batch_size, micro_batch_size or batch.micro_batch_size, topology.dp_size
    )
    precision = resolve_precision(recipe.precision)
    _check_bias(tuning, precision)
    return Launch(precision=precision, micro_batch_size=micro_batch_size)


def _check_bias(tuning: Tuning, precision: Precision) -> None:
    """Raises ConfigError if quantised layers would round the biases that are trained."""
    bias = tuning.bias if isinstance(tuning, AdapterTuning) else "none"
    if tuning.mode in QUANTISED and bias != "none" and precision != "fp32":
        raise ConfigError(
            f"tuning.bias: {bias} with {tuning.mode}: in {precision} bitsandbytes rounds trained "
            f"biases",
            key="tuning.bias",
            value=bias,
            hint="use none, or precision: fp32",
        )
