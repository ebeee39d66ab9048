"""The micro-batch of a run on a GPU: the largest that divides and fits."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator

from trainer.assembly.inputs import Inputs, build_inputs
from trainer.assembly.memory_advice import recipe_memory
from trainer.checkpoints.record import read_record
from trainer.distributed.collectives import on_main
from trainer.engines.micro_batch import AUTO_MICRO_BATCH, resolve_micro_batch_size
from trainer.errors import TrainerError
from trainer.planning.fit import MOST_TOKENS, divisors, last_fitting
from trainer.planning.gpus import Gpu
from trainer.planning.launches import PlannedLaunch
from trainer.planning.lengths import Lengths, lengths_of, prepared_lengths
from trainer.planning.memories import Memories
from trainer.planning.numbers import planned_numbers
from trainer.planning.running_launch import running_launch
from trainer.planning.target import precision_on
from trainer.recipe.schema import Recipe
from trainer.wording import format_bytes, reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class MicroBatch:
    size: int
    reason: str
    """A sentence on how the size was chosen; empty if the recipe gives it or there is no GPU."""
    memories: Memories | None = None
    """What the size was chosen from; None if nothing was planned."""


@dataclass(frozen=True, kw_only=True)
class RunMicroBatch:
    """The micro-batch of a run, the same on every rank."""

    chosen: MicroBatch
    """Its memories are known to the main process alone."""
    inputs: Inputs


def micro_batch_of_run(
    recipe: Recipe,
    accelerator: Accelerator,
    gpu: Gpu | None,
    directory: Path | None,
    other_rows: "Mapping[str, Dataset] | None" = None,
    *,
    continues: Path | None = None,
) -> RunMicroBatch | None:
    """Returns the micro-batch that a run takes in place of `auto`, and the inputs of the run.

    `gpu` is that of this process, with the memory that is left to it: the rank with least decides.
    `directory` and `other_rows` are those of `build_inputs`. A run that `continues` from a
    checkpoint keeps its size if that fits, so that it ends as if it had not been stopped. Returns
    None if the recipe gives the size, or without a GPU. Collective: every rank calls it. Raises
    what `build_inputs` raises, and ConfigError if the global batch does not divide by the ranks.
    """
    if gpu is None or recipe.batch.micro_batch_size != "auto":
        return None
    launch = running_launch(accelerator)
    _resolved(recipe, launch)
    with recipe_memory(recipe, "data", "preparing the data"):
        inputs = build_inputs(recipe, directory, other_rows)
    least = _least(accelerator, gpu.memory)
    gpu = replace(gpu, name=f"{gpu.name} with {format_bytes(least)} left", memory=least)
    planned: list[MicroBatch] = []

    def choose() -> tuple[int, str]:
        lengths = lengths_of(recipe, inputs.splits, inputs.model_config.vocab_size)
        largest = micro_batch_on(recipe, gpu, launch, lengths)
        planned.append(_as_before(largest, recipe, gpu, launch, continues))
        return planned[0].size, planned[0].reason

    size, reason = on_main(accelerator, choose)
    chosen = planned[0] if planned else MicroBatch(size=size, reason=reason)
    return RunMicroBatch(chosen=chosen, inputs=inputs)


def micro_batch_on(
    recipe: Recipe, gpu: Gpu | None, launch: PlannedLaunch, lengths: Lengths | None = None
) -> MicroBatch:
    """Returns the micro-batch of a recipe on a GPU; `lengths` are by default those in the caches.

    `auto` is the largest that divides and fits, or, if that cannot be planned, the largest up to 16
    that divides. Raises ConfigError if the global batch does not divide by the size.
    """
    known = _resolved(recipe, launch)
    if gpu is None or recipe.batch.micro_batch_size != "auto":
        return MicroBatch(size=known, reason="")
    try:
        with torch.random.fork_rng(devices=[]):
            lengths = lengths or prepared_lengths(recipe)
            memories = Memories(
                recipe,
                planned_numbers(recipe, lengths.vocabulary),
                launch,
                precision_on(gpu, recipe.precision),
                lengths,
            )
            size, reason = chosen(memories, gpu)
    except Exception as error:  # a run must not end because of its plan
        return MicroBatch(
            size=known,
            reason=f"micro_batch_size: auto is {known}, the largest up to {AUTO_MICRO_BATCH} that "
            f"divides {share_of(recipe, launch)}, because it cannot be planned: {reason_of(error)}",
        )
    return MicroBatch(size=size, reason=reason, memories=memories)


def chosen(memories: Memories, gpu: Gpu | None) -> tuple[int, str]:
    """Returns the micro-batch size, and a sentence on how it was chosen, empty if the recipe gives
    it or no GPU is.

    Raises ConfigError if the global batch does not divide by it.
    """
    recipe, launch = memories.recipe, memories.launch
    known = _resolved(recipe, launch)
    if recipe.batch.micro_batch_size != "auto" or gpu is None:
        return known, ""
    share, length = share_of(recipe, launch), memories.lengths.longest
    size = largest_fitting(memories, gpu)
    if size is None:
        return 1, (
            f"micro_batch_size: auto is 1, and not even that fits with {length} tokens into "
            f"{gpu.name}"
        )
    return size, (
        f"micro_batch_size: auto is {size}, the largest that divides {share} and fits with "
        f"{length} tokens into {gpu.name}"
    )


def largest_fitting(memories: Memories, gpu: Gpu) -> int | None:
    """Returns the largest micro-batch of the longest examples that divides and fits; None if not
    even one example does."""
    share, length = share_of(memories.recipe, memories.launch), memories.lengths.longest
    known = memories.micro_batches(length) | {_resolved(memories.recipe, memories.launch)}
    # The whole share needs no room for gradients beside its activations, so it may fit although a
    # smaller size does not.
    if share * length <= MOST_TOKENS:
        known.add(share)
    return last_fitting(divisors(share), partial(_most, memories, gpu), gpu.memory, known)


def _most(memories: Memories, gpu: Gpu, size: int) -> int:
    """Returns the most bytes that a process needs for micro-batches of the longest examples."""
    return memories.process(size, memories.lengths.longest, gpu)[1]


def share_of(recipe: Recipe, launch: PlannedLaunch) -> int:
    """Returns the examples of a process in a step."""
    return recipe.batch.global_batch_size // launch.processes


def _as_before(
    largest: MicroBatch,
    recipe: Recipe,
    gpu: Gpu,
    launch: PlannedLaunch,
    checkpoint: Path | None,
) -> MicroBatch:
    """Returns the micro-batch of a checkpoint if it was made by as many processes and fits."""
    if checkpoint is None:
        return largest
    try:
        before = read_record(checkpoint)["launch"]
    except TrainerError:  # a reader of the checkpoint itself says what is wrong
        return largest
    # Checkpoints from before the plan decided do not say what they took.
    size = before.get("micro_batch_size", _resolved(recipe, launch))
    divides = size in divisors(share_of(recipe, launch))
    if before.get("processes") != launch.processes or not divides:
        return largest
    memories = largest.memories
    if memories is not None and _most(memories, gpu, size) > gpu.memory:
        return largest
    reason = f"micro_batch_size: auto is {size}, as in the checkpoint from which the run continues"
    return replace(largest, size=size, reason=reason)


def _least(accelerator: Accelerator, memory: int) -> int:
    """Returns the least memory of all ranks."""
    own = torch.tensor([memory], dtype=torch.int64, device=accelerator.device)
    gathered: Any = accelerator.gather(own)
    return int(gathered.min())


def _resolved(recipe: Recipe, launch: PlannedLaunch) -> int:
    """Returns the size as a run without a plan resolves it."""
    batch = recipe.batch
    return resolve_micro_batch_size(
        batch.global_batch_size, batch.micro_batch_size, launch.processes
    )
