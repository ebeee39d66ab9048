"""A run beside its plan: what the plan says of a run, and what was measured."""

from typing import Any

from trainer.run import Run
from trainer.tracking.time_to_go import Planned


def planned_for_run(run: Run) -> Planned | None:
    """Returns what the plan says of a run; None if it says nothing.

    A run on a CPU is not planned: a process there shows its resident memory, which holds libraries
    and the allocator's reserve beside the tensors that a plan counts.
    """
    del run
    return None


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
