"""A run beside its plan: what the plan says of a run, and what was measured."""

from typing import Any

import torch
from accelerate import Accelerator

from trainer.engines.micro_batch import accumulation
from trainer.planning.gpus import Gpu
from trainer.planning.lengths import lengths_of
from trainer.planning.memories import Memories, more_workspace
from trainer.planning.numbers import planned_numbers
from trainer.planning.process_memory import ProcessMemory, process_memory, traced_recipe
from trainer.planning.run_time import time_of_step
from trainer.planning.running_launch import running_launch
from trainer.planning.target import gpu_of
from trainer.planning.trace.model import has_equal_layers
from trainer.planning.trace.step import Shape
from trainer.run import Run
from trainer.tracking.time_to_go import Planned
from trainer.wording import reason_of


def planned_for_run(
    run: Run, accelerator: Accelerator, memories: Memories | None = None
) -> Planned | None:
    """Returns what `planned_on` says about this machine's GPU; None for a run on a CPU.

    On a CPU a process shows its resident memory, which holds libraries and the allocator's reserve
    beside the tensors that a plan counts, and how fast the CPU computes is not known.
    """
    gpu = gpu_of(accelerator.device)
    return None if gpu is None else planned_on(run, accelerator, gpu, memories)


def planned_on(
    run: Run, accelerator: Accelerator, gpu: Gpu, memories: Memories | None = None
) -> Planned | None:
    """Returns what the plan says of a run whose ranks train on such GPUs; None if it cannot be
    planned, which a note then says.

    `memories` are those from which the run's micro-batch was chosen, if it was.
    """
    size = run.micro_batch_size
    num_micro_batches = accumulation(run.recipe, size, run.topology.dp_size)
    try:
        with torch.random.fork_rng(devices=[]):
            memories = memories or memories_of(run, accelerator)
            memory = memories.of(size, memories.lengths.longest)
            time = time_of_step(memories, gpu, size, num_micro_batches)
    except Exception as error:  # a run must not end because of its plan
        return _not_planned(run, error)
    return Planned(
        memory_bytes=memory.peak.allocated + more_workspace(gpu),
        seconds_per_step=None if time is None else (time.step.low, time.step.high),
    )


def planned_for_dry_run(
    run: Run, accelerator: Accelerator, memories: Memories | None = None
) -> Planned | None:
    """Returns the planned peak of the tensors that a process holds in training, without evaluation;
    None if it cannot be planned, which a note then says.

    `memories` are those from which the run's micro-batch was chosen, if it was.
    """
    gpu, size = gpu_of(accelerator.device), run.micro_batch_size
    longest = int(run.splits["train"].lengths.max())
    more = 0 if gpu is None else more_workspace(gpu)
    try:
        with torch.random.fork_rng(devices=[]):
            if memories is None:
                memory = _without_evaluation(run, accelerator, longest, on_gpu=gpu is not None)
            else:
                memory = memories.of(size, longest)
    except Exception as error:  # the steps are tried in any case
        return _not_planned(run, error)
    return Planned(memory_bytes=_in_training(memory) + more)


def memories_of(run: Run, accelerator: Accelerator) -> Memories:
    """Returns the memory of a run under the launch of its ranks."""
    return Memories(
        run.recipe,
        planned_numbers(run.recipe, run.base.rows),
        running_launch(accelerator),
        run.precision,
        lengths_of(run.recipe, run.splits, run.base.rows),
    )


def beside_plan(
    planned: Planned | None, *, memory_bytes: int, seconds: float, num_steps: int
) -> dict[str, Any]:
    """Returns the entry `plan` of results.json.

    `memory_bytes` is the measured peak of a process, `seconds` the training time of `num_steps`
    steps.
    """
    per_step = None if planned is None else planned.seconds_per_step
    return {
        "memory": {
            "planned": None if planned is None else planned.memory_bytes,
            "measured": memory_bytes or None,
        },
        "seconds": {
            "planned": None if per_step is None else [each * num_steps for each in per_step],
            "measured": seconds,
        },
    }


def _without_evaluation(
    run: Run, accelerator: Accelerator, longest: int, *, on_gpu: bool
) -> ProcessMemory:
    """Returns the memory of a process whose step has examples of `longest` tokens."""
    size = run.micro_batch_size
    numbers = planned_numbers(run.recipe, run.base.rows)
    launch = running_launch(accelerator)
    traced = traced_recipe(
        run.recipe,
        numbers,
        Shape(
            micro_batch_size=size,
            length=longest,
            num_micro_batches=accumulation(run.recipe, size, run.topology.dp_size),
        ),
        precision=run.precision,
        launch=launch,
        on_gpu=on_gpu,
        equal_layers=has_equal_layers(run.recipe, numbers),
    )
    return process_memory(
        traced, run.recipe, numbers, length=longest, precision=run.precision, launch=launch
    )


def _in_training(memory: ProcessMemory) -> int:
    return max(
        peak.allocated
        for phase, peak in memory.peaks.items()
        if phase in ("forward", "backward", "optimizer")
    )


def _not_planned(run: Run, error: Exception) -> None:
    run.tracker.say(f"  note: this run is not planned: {reason_of(error)}")
