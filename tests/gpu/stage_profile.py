"""Stage 8: what the GPU does in steps of stage 2, and how long it waits for the host."""

import time
from typing import Any

import torch
from causal_runs import build, recipe_values
from stage import Stage
from torch.profiler import ProfilerActivity, profile

WARM_UP, STEPS, TOP = 3, 4, 20


def main() -> None:
    from trainer.loop import micro_batches_of_step, optimizer_step

    stage = Stage.from_arguments()
    run, accelerator = build(recipe_values(stage, "qlora"), stage.work / "profile")
    run.objective.train()

    def steps(first: int, last: int) -> float:
        begun = time.perf_counter()
        for step in range(first, last):
            optimizer_step(
                run, accelerator, micro_batches_of_step(run, accelerator, step), step=step + 1
            )
        if stage.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - begun

    num_steps = 1 if stage.tiny else STEPS
    steps(0, WARM_UP)
    plain = steps(WARM_UP, WARM_UP + num_steps)
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * stage.on_gpu]
    with profile(activities=activities, acc_events=True) as profiler:
        profiled = steps(WARM_UP + num_steps, WARM_UP + 2 * num_steps)
    stage.figure("steps", num_steps)
    stage.figure("seconds_without_the_profiler", plain)
    stage.figure("seconds_with_it", profiled)
    events: Any = profiler.events()
    on_device = [event for event in events if event.device_type.name == "CUDA"]
    on_host = [event for event in events if event.device_type.name == "CPU"]
    stage.figure(
        "top_operations_of_the_host", table([(e.name, e.self_cpu_time_total) for e in on_host])
    )
    title = "kernels were recorded"
    if not stage.on_gpu:
        stage.not_run(title, "no GPU; only operations of the host")
        return
    kernels = [event for event in on_device if not getattr(event, "is_user_annotation", False)]
    stage.figure("top_kernels", table([(e.name, e.time_range.elapsed_us()) for e in kernels]))
    busy, span = busy_and_span([(e.time_range.start, e.time_range.end) for e in kernels])
    # The profiler slows the host down, so the share is also computed from steps without it.
    headline = {
        "gpu_busy_seconds": busy / 1e6,
        "host_wait_share": 1 - busy / span,
        "host_wait_share_without_the_profiler": 1 - busy / 1e6 / plain,
    }
    stage.figure("headline", headline)
    stage.check(title, len(kernels) > 0, number=len(kernels))


def table(events: list[tuple[str, float]]) -> list[dict[str, Any]]:
    """Returns the operations that took the most time by themselves, from names and microseconds."""
    found: dict[str, list[float]] = {}
    for name, taken in events:
        found.setdefault(name, []).append(taken)
    total = sum(map(sum, found.values())) or 1.0
    ordered = sorted(found.items(), key=lambda item: -sum(item[1]))[:TOP]
    return [
        {
            "name": name[:120],
            "calls": len(taken),
            "milliseconds": round(sum(taken) / 1000, 3),
            "share": round(sum(taken) / total, 4),
        }
        for name, taken in ordered
    ]


def busy_and_span(intervals: list[tuple[float, float]]) -> tuple[float, float]:
    """Returns the length of the union of intervals, and the time from first to last."""
    busy, end = 0.0, float("-inf")
    for start, stop in sorted(intervals):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return busy, end - min(start for start, _ in intervals)


if __name__ == "__main__":
    main()
