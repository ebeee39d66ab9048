"""The plan of a run as text for a terminal."""

from collections.abc import Iterator

from trainer.planning.gpus import MIB
from trainer.planning.plan import OnGpu, Plan
from trainer.wording import format_bytes, format_seconds

PHASES = {
    "loading": "while loading",
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "optimizer": "in the optimizer's part",
    "evaluation": "in the evaluation",
}


def line(plan: Plan) -> str:
    """Returns the plan in one sentence."""
    size = f"{_mib(plan.memory.peak.allocated)} of tensors at the peak of a process"
    if len(plan.gpus) == 1:
        verdict = f"{'fits' if plan.fits else 'does not fit'} into a {plan.gpus[0].gpu.name}"
    else:
        fitting = [each.gpu.name for each in plan.gpus if each.fits]
        verdict = f"fits into {', '.join(fitting) or 'none of the GPUs'}"
    time = "" if plan.time is None else f", {_span(plan.time.step.low, plan.time.step.high)} a step"
    return f"{size} with micro-batches of {plan.micro_batch_size} x {plan.length} tokens; {verdict}{time}"


def lines(plan: Plan) -> Iterator[str]:
    """Yields the lines of the plan, without line ends."""
    launch, recipe = plan.launch, plan.recipe
    several = "es" * (launch.processes > 1)
    yield (
        f"{recipe.batch.global_batch_size} examples a step = {launch.processes} process{several} x "
        f"micro-batch {plan.micro_batch_size} x accumulation {plan.accumulation}, up to "
        f"{plan.length} tokens, {plan.precision}, tuning {recipe.tuning.mode}, engine "
        f"{launch.engine}"
    )
    yield from (f"  note: {note}" for note in plan.notes)
    yield ""
    yield f"Memory of each process: {_mib(plan.memory.peak.allocated)} of tensors at the peak"
    yield f"  when: {when(plan)}"
    held = plan.memory.peak.held
    yield from (f"  {_mib(size):>12}  {kind}" for kind, size in held.most_common())
    others = [
        f"{_mib(peak.allocated)} {PHASES[phase]}"
        for phase, peak in plan.memory.peaks.items()
        if phase != plan.memory.phase
    ]
    yield f"  other peaks: {', '.join(others)}"
    yield ""
    yield "GPU             memory    the process shows    fits  largest micro-batch  longest sequence"
    yield from map(_row, plan.gpus)
    if plan.changes:
        yield ""
        yield f"What changes it, on a {plan.gpus[0].gpu.name}:"
        for change in plan.changes:
            fits = "fits" if change.fits else "does not fit"
            yield f"  {_mib(change.allocated):>12}  {change.setting} ({fits}; {change.cost})"
    yield ""
    yield from _time(plan)
    yield from _disk(plan)
    yield from _host(plan)


def when(plan: Plan) -> str:
    """Returns when in a step the peak is, as a clause."""
    peak, phase = plan.memory.peak, PHASES[plan.memory.phase]
    if peak.section is not None:
        return f"{phase}, at layer {peak.section.layer}"
    return f"{phase}, after {peak.module}" if peak.module else phase


def _row(on: OnGpu) -> str:
    low, high = on.process
    largest = on.largest_micro_batch or "none"
    longest = f"{on.longest_sequence:,}" if on.longest_sequence else "none"
    shown = f"{low / MIB:,.0f} to {high / MIB:,.0f} MiB"
    return (
        f"{on.gpu.name:<14} {_mib(on.gpu.memory):>12}  {shown:<20} "
        f"{'yes' if on.fits else 'no':<5} {largest!s:<20} {longest}"
    ).rstrip()


def _time(plan: Plan) -> Iterator[str]:
    gpu, lengths = plan.gpus[0].gpu, plan.lengths
    yield f"Computing: {plan.memory.flops / 1e12:,.3g} TFLOP in each micro-batch of the longest"
    if plan.time is None:
        yield f"Time: no peak of a {gpu.name} is known in {plan.precision}"
        return
    low, high = plan.time.shares
    yield (
        f"Time on a {gpu.name}: {_span(plan.time.step.low, plan.time.step.high)} a step, if it "
        f"computes at {low:.0%} to {high:.0%} of its peak"
    )
    if lengths.num_steps is not None:
        span = plan.time.of_steps(lengths.num_steps)
        yield f"  {lengths.num_steps:,} steps: {_span(span.low, span.high)}, without evaluation"
    if lengths.tokens_per_epoch is not None:
        yield f"  {lengths.tokens_per_epoch:,} tokens an epoch, without padding"


def _disk(plan: Plan) -> Iterator[str]:
    disk = plan.disk
    prepared = "unknown" if disk.prepared is None else format_bytes(disk.prepared)
    download = "unknown" if disk.download is None else format_bytes(disk.download)
    yield (
        f"Disk: {format_bytes(disk.run_directory)} in the run directory ({disk.kept.resumable} "
        f"checkpoints of {format_bytes(disk.checkpoint.total)}, model "
        f"{format_bytes(disk.model)}), prepared data {prepared}, download {download}"
    )
    yield from (f"  note: {note}" for note in disk.notes)


def _host(plan: Plan) -> Iterator[str]:
    host = plan.host
    yield (
        f"Host memory: {format_bytes(host.process)} for the main process, "
        f"{format_bytes(host.machine)} for all of a machine"
    )
    yield from (f"  note: {note}" for note in host.notes)


def _span(low: float, high: float) -> str:
    return f"{format_seconds(low)} to {format_seconds(high)}"


def _mib(size: float) -> str:
    return f"{size / MIB:,.0f} MiB"
