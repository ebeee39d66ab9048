"""Settings that change the memory of a run, each with what it saves and what it costs."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from trainer.errors import ConfigError
from trainer.models.load import QUANTISED
from trainer.planning.fit import divisors
from trainer.planning.gpus import Gpu
from trainer.planning.launches import SHARDED, PlannedLaunch
from trainer.planning.memories import Memories
from trainer.planning.trainable import is_trainable
from trainer.recipe.reading import validated, with_value
from trainer.recipe.schema import Recipe

SHORTEST = 64
"""No shorter sequences are proposed."""
GPUS_TO_SHARD = 4
"""Proposed for a launch on one."""


@dataclass(frozen=True, kw_only=True)
class Change:
    setting: str
    """As it is written after --set, or a launch."""
    allocated: int
    """Peak bytes of a process with it."""
    process: tuple[int, int]
    """What the process will show with it."""
    fits: bool
    """Whether it then fits on the GPU."""
    cost: str
    """What it changes besides, a clause."""

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "process": list(self.process)}


def changes(memories: Memories, gpu: Gpu, micro_batch_size: int) -> Iterator[Change]:
    """Yields what one setting would change for a GPU: less memory, or less time if room is left."""
    recipe, longest = memories.recipe, memories.lengths.longest
    share = recipe.batch.global_batch_size // memories.launch.processes
    flops = memories.of(micro_batch_size, longest).flops

    def change(
        setting: str, other: Memories, size: int, length: int, cost: str
    ) -> Iterator[Change]:
        try:
            traced, process = other.of(size, length), other.process(size, length, gpu)
        except ConfigError:  # the model cannot be trained so
            return
        if not cost:
            cost = f"{traced.flops / flops - 1:+.0%} operations, and the same numbers"
        yield Change(
            setting=setting,
            allocated=traced.peak.allocated,
            process=process,
            fits=process[1] <= gpu.memory,
            cost=cost,
        )

    smaller = [size for size in divisors(share) if size < micro_batch_size]
    if smaller:
        cost = "more micro-batches a step, and the same numbers"
        setting = f"batch.micro_batch_size={smaller[-1]}"
        yield from change(setting, memories, smaller[-1], longest, cost)
    for setting, values, cost in _settings(recipe, memories.launch):
        other = _with(memories, values)
        if other is not None:
            yield from change(setting, other, micro_batch_size, longest, cost)
    half = max(SHORTEST, 2 ** ((longest - 1).bit_length() - 1)) if longest > 1 else longest
    if half < longest:
        cost = f"{_share_cut(memories, half)} of the train examples are cut"
        yield from change(f"batch.max_seq_length={half}", memories, micro_batch_size, half, cost)
    sharded = _sharded(memories, micro_batch_size)
    if sharded is not None:
        wider = sharded.launch
        setting = f"--config accelerate_configs/zero3.yaml --processes {wider.processes}"
        if wider.nodes > 1:
            setting += f" --nodes {wider.nodes}"
        cost = f"{wider.processes} GPUs, and the same numbers"
        yield from change(setting, sharded, micro_batch_size, longest, cost)


def _settings(
    recipe: Recipe, launch: PlannedLaunch
) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    """Yields settings as they are written, their values by dotted key, and what they cost; an empty
    cost is counted in operations."""
    mode = recipe.tuning.mode
    if mode != "head_only":
        wanted = not recipe.model.gradient_checkpointing
        key = "model.gradient_checkpointing"
        yield f"{key}={str(wanted).lower()}", {key: wanted}, ""
    pretrained = recipe.model.initialization == "pretrained"
    if mode in ("full", "lora") and pretrained and launch.engine != "fsdp2":
        cost = "the base is rounded to 4 bits" + ", only adapters learn" * (mode == "full")
        yield "tuning.mode=qlora", {"tuning.mode": "qlora"}, cost
    sharded = launch.engine in SHARDED
    if mode not in ("head_only", *QUANTISED) and recipe.optimizer.name == "adamw" and not sharded:
        cost = "8-bit moments, which may be paged to the host"
        name = "paged_adamw_8bit"
        yield f"optimizer.name={name}", {"optimizer.name": name}, cost


def _with(memories: Memories, changed: Mapping[str, Any]) -> Memories | None:
    """Returns the memory of the recipe with other values; None if they contradict the others."""
    recipe = memories.recipe
    values = recipe.model_dump(mode="json", exclude_unset=True)
    for key, value in changed.items():
        values = with_value(values, key, value)
    try:
        other = validated(type(recipe), values, "the recipe")
    except ConfigError:
        return None
    return memories.changed(other, memories.launch)


def _sharded(memories: Memories, micro_batch_size: int) -> Memories | None:
    """Returns the memory under ZeRO-3 on the GPUs of the launch, or on some if it has one; None if
    it is sharded already, the batch does not divide, or ZeRO cannot train the recipe."""
    recipe, launch = memories.recipe, memories.launch
    whole = recipe.batch.global_batch_size
    processes = launch.processes if launch.processes > 1 else GPUS_TO_SHARD
    if launch.engine in SHARDED or whole % (processes * micro_batch_size):
        return None
    wider = replace(launch, engine="zero3", processes=processes, bucket=None)
    if not is_trainable(recipe, wider, memories.precision):
        return None
    return memories.changed(recipe, wider)


def _share_cut(memories: Memories, length: int) -> str:
    train = memories.lengths.train
    if train is None or not memories.lengths.exact:
        return "an unknown share"
    return f"{np.mean(train > length):.1%}"
