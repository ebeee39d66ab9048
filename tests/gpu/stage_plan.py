"""Stage 3: what a plan says of ten runs, beside what they take.

Each row trains three steps of two micro-batches of its longest examples, then evaluates. `process`
is what the driver counts for this process, and `context` that without what its allocator holds;
kernels that earlier rows loaded stay in both.
"""

import statistics
import subprocess
import time
from typing import Any

import torch
from accelerate.state import AcceleratorState
from causal_runs import free_memory
from plan_rows import ROWS, Row, recipe_of
from stage import Stage

NUM_STEPS = 3
SECONDS = 100
"""No further row is begun after this time."""
REHEARSED = "h100"
"""The GPU that a rehearsal plans for."""


def main() -> None:
    begun = time.monotonic()
    stage = Stage.from_arguments()
    used_before = used_by_all(stage)
    if stage.on_gpu:
        torch.zeros(1, device="cuda")
        stage.figure("context", difference(used_by_all(stage), used_before))
    rows: dict[str, Any] = {}
    for row in ROWS:
        if stage.on_gpu and time.monotonic() - begun > SECONDS:
            stage.not_run(row.name, "no time was left")
            continue
        with stage.guarded(row.name):
            rows[row.name] = measured(stage, row, used_before)
            stage.figure("rows", rows)
            stage.figure("headline", headline(list(rows.values())))
            judge(stage, row.name, rows[row.name])


def measured(stage: Stage, row: Row, used_before: int | None) -> dict[str, Any]:
    """Returns what a row takes and what its plan says, in bytes and seconds."""
    from trainer.assembly.build import build_run
    from trainer.engines.accelerator import launched
    from trainer.evaluation.evaluate import evaluate
    from trainer.loop import optimizer_step
    from trainer.planning.dry_run import longest_micro_batch
    from trainer.tasks.recipe import parse_recipe

    AcceleratorState._reset_state(reset_partial_state=True)
    free_memory(stage.device)
    held_before = torch.cuda.memory_allocated() if stage.on_gpu else None
    recipe = parse_recipe(recipe_of(stage, row), "tests/gpu")
    folder = stage.work / row.name.replace(" ", "-")
    folder.mkdir()
    with launched(recipe, folder) as accelerator:
        begun = time.perf_counter()
        run = build_run(recipe, accelerator, folder)
        built = time.perf_counter() - begun
        batch = longest_micro_batch(run).to(accelerator.device)
        run.objective.train()
        seconds: list[float] = []
        for step in range(1, NUM_STEPS + 1):
            begun = time.perf_counter()
            optimizer_step(run, accelerator, [batch, batch], step=step)
            finish(stage)
            seconds.append(time.perf_counter() - begun)
        trained = peaks(stage)
        evaluate(run, accelerator, "validation")
        finish(stage)
        whole = peaks(stage)
        process = difference(used_by_all(stage), used_before)
        held = torch.cuda.memory_reserved() if stage.on_gpu else None
        plan = planned(stage, run, accelerator)
        del batch, run
    return {
        "held_before": held_before,
        "seconds_to_build": built,
        "measured": {
            "allocated_in_training": trained["allocated"],
            **whole,
            "process": process,
            "context": difference(process, held),
            "first_step": seconds[0],
            "seconds_of_a_step": statistics.median(seconds[1:]),
        },
        "planned": plan,
    }


def planned(stage: Stage, run: Any, accelerator: Any) -> dict[str, Any]:
    """Returns the figures of the plan of a run on this GPU."""
    from trainer.planning.gpus import GPUS
    from trainer.planning.measured import memories_of
    from trainer.planning.memories import more_workspace
    from trainer.planning.run_time import time_of_step
    from trainer.planning.target import local_gpu

    gpu = local_gpu() if stage.on_gpu else GPUS[REHEARSED]
    assert gpu is not None
    begun = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        memories = memories_of(run, accelerator)
        size, longest = run.micro_batch_size, memories.lengths.longest
        memory = memories.of(size, longest)
        taken = time_of_step(memories, gpu, size, 2)
    more = more_workspace(gpu)
    phases = {phase: peak.allocated + more for phase, peak in memory.peaks.items()}
    in_training = ("forward", "backward", "optimizer")
    return {
        "gpu": gpu.name,
        "length": longest,
        "allocated_in_training": max(phases[phase] for phase in in_training),
        "allocated": max(phases.values()),
        "reserved": memory.reserved + more,
        "process": list(memories.process(size, longest, gpu)),
        "context": gpu.context,
        "phases": phases,
        "held_at_the_peak": dict(memory.peak.held),
        "flops_of_micro_batch": memory.flops,
        "kernels_of_micro_batch": memory.kernels,
        "seconds_of_a_step": None if taken is None else [taken.step.low, taken.step.high],
        "seconds_to_plan": time.perf_counter() - begun,
    }


def judge(stage: Stage, name: str, row: dict[str, Any]) -> None:
    """Checks that a row's allocated memory is within 5 % of its plan; on a CPU nothing is known."""
    if not stage.on_gpu:
        stage.not_run(name, "no GPU; the steps and the plan ran")
        return
    error = errors(row)["allocated_in_training"]
    stage.check(name, abs(error) <= 0.05, error=error)


def errors(row: dict[str, Any]) -> dict[str, float]:
    """Returns how much more the plan says than was measured, as shares; the middle of a range."""
    plan, found = row["planned"], row["measured"]
    low, high = plan["process"]
    pairs = {name: plan[name] for name in ("allocated_in_training", "allocated", "reserved")}
    pairs |= {"process": (low + high) / 2}
    return {name: value / found[name] - 1 for name, value in pairs.items() if found[name]}


def headline(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns mean and greatest error of each figure, and the number of steps in their range."""
    each = [errors(row) for row in rows]
    found: dict[str, Any] = {"rows": len(rows)}
    for name in each[0]:
        sizes = [abs(error[name]) for error in each if name in error]
        found[name] = {"mean": statistics.mean(sizes), "worst": max(sizes)}
    inside = 0
    for row in rows:
        span = row["planned"]["seconds_of_a_step"]
        seconds = row["measured"]["seconds_of_a_step"]
        inside += span is not None and span[0] <= seconds <= span[1]
    return {**found, "steps_within_the_planned_time": inside}


def peaks(stage: Stage) -> dict[str, int | None]:
    """Returns the peaks of the allocator since `free_memory`; None on a CPU."""
    if not stage.on_gpu:
        return {"allocated": None, "reserved": None}
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
    }


def finish(stage: Stage) -> None:
    """Waits for the GPU."""
    if stage.on_gpu:
        torch.cuda.synchronize()


def used_by_all(stage: Stage) -> int | None:
    """Returns the bytes of the GPU that all processes use; None if the driver does not say."""
    if not stage.on_gpu:
        return None
    command = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return int(done.stdout) * 2**20
    except (OSError, ValueError, subprocess.SubprocessError):
        return None


def difference(more: int | None, less: int | None) -> int | None:
    return None if more is None or less is None else more - less


if __name__ == "__main__":
    main()
