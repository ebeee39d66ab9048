"""The plan of a run: whether it fits, how long it takes and what it needs, before it starts."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoints.disk_space import checkpoint_size
from trainer.engines.micro_batch import accumulation
from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.models.architecture import shape_config
from trainer.models.positions import check_length, num_positions
from trainer.planning.changes import Change, changes
from trainer.planning.collectives import collectives, sent_within_and_between, volume_of
from trainer.planning.disk import Disk, planned_disk
from trainer.planning.fit import MOST_TOKENS, last_fitting, tried_lengths
from trainer.planning.gpus import Gpu
from trainer.planning.held_memory import PlannedParameter
from trainer.planning.host_memory import HostMemory, Model, planned_host_memory
from trainer.planning.launches import PlannedLaunch, planned_launch
from trainer.planning.lengths import Lengths, prepared_lengths
from trainer.planning.memories import Memories
from trainer.planning.micro_batch import chosen, largest_fitting
from trainer.planning.numbers import planned_numbers
from trainer.planning.process_memory import ProcessMemory
from trainer.planning.run_time import time_of_step
from trainer.planning.step_time import StepTime
from trainer.planning.target import precision_on, target_gpus
from trainer.planning.text import line, lines
from trainer.planning.trace.model import num_layers
from trainer.planning.trace.repeated_layers import TRACED
from trainer.planning.trainable import check_trainable
from trainer.recipe.schema import Recipe


@dataclass(frozen=True, kw_only=True)
class OnGpu:
    """Whether a run fits on a GPU, and what would."""

    gpu: Gpu
    process: tuple[int, int]
    """What the process will show there, in bytes: from least to most."""
    fits: bool
    largest_micro_batch: int | None
    """The largest that divides and fits; None if not even one example does."""
    longest_sequence: int | None
    """The longest that fits with the planned micro-batch, up to the positions of the model and to
    MOST_TOKENS in a micro-batch; None if none does."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "gpu": self.gpu.name,
            "memory": self.gpu.memory,
            "process": list(self.process),
            "fits": self.fits,
            "largest_micro_batch": self.largest_micro_batch,
            "longest_sequence": self.longest_sequence,
        }


@dataclass(frozen=True, kw_only=True)
class Plan:
    recipe: Recipe
    launch: PlannedLaunch
    precision: Precision
    micro_batch_size: int
    accumulation: int
    length: int
    """Tokens of the longest example, with which memory is planned."""
    memory: ProcessMemory
    num_layers: int
    gpus: tuple[OnGpu, ...]
    """The GPU that is planned for, or each of a list; the first one decides about precision."""
    changes: tuple[Change, ...]
    time: StepTime | None
    """Of an optimizer step on the first GPU; None if no peak of it is known."""
    lengths: Lengths
    disk: Disk
    host: HostMemory
    notes: tuple[str, ...]
    """What is assumed or not known, a sentence each."""

    @property
    def fits(self) -> bool:
        """Whether it fits on any of the GPUs."""
        return any(each.fits for each in self.gpus)

    @property
    def line(self) -> str:
        """The plan in one sentence."""
        return line(self.as_dict())

    def __str__(self) -> str:
        """Returns the plan as lines for a terminal."""
        return "\n".join(lines(self.as_dict()))

    def as_dict(self) -> dict[str, Any]:
        """Returns the plan as plain JSON values; memory is in bytes, time in seconds."""
        memory = self.memory
        section = memory.peak.section
        inside, between = sent_within_and_between(
            collectives(
                self.launch.engine,
                volume_of(self.launch.engine, memory.parameters, self.precision),
                self.launch.processes,
                accumulation=self.accumulation,
                node_size=self.launch.second_copy or self.launch.node_size,
                live=self.launch.live,
                replicas=self.launch.replicas,
            ),
            self.launch.node_size,
        )
        return {
            "global_batch_size": self.recipe.batch.global_batch_size,
            "tuning": self.recipe.tuning.mode,
            "precision": self.precision,
            "engine": self.launch.engine,
            "processes": self.launch.processes,
            "nodes": self.launch.nodes,
            "micro_batch_size": self.micro_batch_size,
            "accumulation": self.accumulation,
            "length": self.length,
            "memory": {
                "allocated": memory.peak.allocated,
                "phase": memory.phase,
                "layer": None if section is None else section.layer,
                "num_layers": self.num_layers,
                "module": memory.peak.module,
                "held": dict(memory.peak.held),
                "phases": {name: peak.allocated for name, peak in memory.peaks.items()},
                "reserved": memory.reserved,
                "host": vars(memory.engine.host),
                "nvme": vars(memory.engine.nvme),
            },
            "gpus": [each.as_dict() for each in self.gpus],
            "fits": self.fits,
            "changes": [change.as_dict() for change in self.changes],
            "flops_of_micro_batch": memory.flops,
            "time": None if self.time is None else self.time.as_dict(),
            "seconds": self._seconds(),
            "bytes_sent": {"inside": inside, "between": between},
            "lengths": self.lengths.as_dict(),
            "disk": self.disk.as_dict(),
            "host_memory": self.host.as_dict(),
            "notes": list(self.notes),
        }

    def _seconds(self) -> list[float] | None:
        """Returns the least and the most seconds of all steps; None if they are unknown."""
        steps = self.lengths.num_steps
        if self.time is None or steps is None:
            return None
        span = self.time.of_steps(steps)
        return [span.low, span.high]


def plan(
    recipe: Recipe,
    *,
    gpu: str | None = None,
    memory: int | None = None,
    processes: int | None = None,
    nodes: int | None = None,
    config: Path | None = None,
) -> Plan:
    """Returns the plan of a recipe, traced on this machine's CPU without weights or network.

    It is for the GPU of a name or of a memory in bytes, for this machine's, or else for each of a
    list. `config` is a launch configuration of Accelerate; `processes` and `nodes` replace its
    numbers. Raises ConfigError for an unknown GPU, a launch or a model that cannot be read, and a
    recipe that cannot be trained so.
    """
    launch = planned_launch(config, processes, nodes)
    targets = target_gpus(gpu, memory)
    named = len(targets) == 1
    precision = precision_on(targets[0], recipe.precision)
    check_trainable(recipe, launch, precision)
    check_length(shape_config(recipe.model), recipe.batch.max_seq_length)
    lengths = prepared_lengths(recipe)
    numbers = planned_numbers(recipe, lengths.vocabulary)
    memories = Memories(recipe, numbers, launch, precision, lengths)
    size, why = chosen(memories, targets[0] if named else None)
    longest = max(lengths.longest, min(num_positions(numbers) or MOST_TOKENS, MOST_TOKENS // size))
    on_gpus = tuple(_on_gpu(memories, each, size, longest) for each in targets)
    planned = memories.of(size, lengths.longest)
    num_micro_batches = accumulation(recipe, size, launch.processes)
    weights = sum(_weights(each) for each in planned.parameters)
    trained: Any = [each for each in planned.parameters if each.trainable]
    checkpoint = checkpoint_size(trained, recipe.optimizer)
    itemsize = COMPUTE_DTYPES[precision].itemsize
    notes = [why] if why else []
    if lengths.note is not None:
        notes.append(lengths.note)
    if not planned.equal_layers and num_layers(numbers) > TRACED:
        notes.append("the layers differ, so all of them were traced")
    return Plan(
        recipe=recipe,
        launch=launch,
        precision=precision,
        micro_batch_size=size,
        accumulation=num_micro_batches,
        length=lengths.longest,
        memory=planned,
        num_layers=num_layers(numbers),
        gpus=on_gpus,
        changes=tuple(changes(memories, targets[0], size)) if named else (),
        time=time_of_step(memories, targets[0], size, num_micro_batches),
        lengths=lengths,
        disk=planned_disk(recipe, lengths, checkpoint, num_parameters=weights, itemsize=itemsize),
        host=planned_host_memory(
            recipe,
            launch,
            Model(
                num_weights=weights,
                largest=max(_weights(each) for each in planned.parameters),
                itemsize=itemsize,
                stored=sum(each.num_weights * each.dtype.itemsize for each in planned.parameters),
            ),
            checkpoint,
            offloaded=planned.engine.host.total,
        ),
        notes=tuple(notes),
    )


def _on_gpu(memories: Memories, gpu: Gpu, size: int, longest: int) -> OnGpu:
    length = memories.lengths.longest
    shown = memories.process(size, length, gpu)
    return OnGpu(
        gpu=gpu,
        process=shown,
        fits=shown[1] <= gpu.memory,
        largest_micro_batch=largest_fitting(memories, gpu),
        longest_sequence=last_fitting(
            sorted({*tried_lengths(longest), length}),
            lambda tokens: memories.process(size, tokens, gpu)[1],
            gpu.memory,
            memories.lengths_of(size),
        ),
    )


def _weights(parameter: PlannedParameter) -> int:
    """Returns the number of weights in a parameter; packed in 4 bits, an element holds two."""
    return parameter.num_weights * (2 if parameter.dtype == torch.uint8 else 1)
