"""The plan of a run as text for a terminal, from its JSON values."""

from collections.abc import Iterator, Mapping
from typing import Any

from trainer.wording import format_bytes, format_span, listed, visible

PHASES = {
    "loading": "while loading",
    "forward": "in the forward pass",
    "backward": "in the backward pass",
    "optimizer": "in the optimizer's part",
    "evaluation": "in the evaluation",
    "generation": "while it generates answers",
    "saving": "while it saves",
}
MIB = 2**20
Values = Mapping[str, Any]


def line(plan: Values) -> str:
    """Returns the plan in one sentence."""
    gpus = plan["gpus"]
    fitting = [gpu["gpu"] for gpu in gpus if gpu["fits"]]
    if len(gpus) == 1:
        verdict = f"{'fits' if fitting else 'does not fit'} into {gpus[0]['gpu']}"
    else:
        verdict = f"fits into {listed(fitting) if fitting else 'none of the GPUs'}"
    time = plan["time"]
    seconds = "" if time is None else f", {format_span(*time['seconds_of_a_step'])} a step"
    return (
        f"{_mib(plan['memory']['allocated'])} of tensors at the peak of a process, with "
        f"micro-batches of {plan['micro_batch_size']} x {plan['length']} tokens; "
        f"{verdict}{seconds}"
    )


def lines(plan: Values) -> Iterator[str]:
    """Yields the lines of the plan, without line ends."""
    several = "es" * (plan["processes"] > 1)
    yield (
        f"{plan['global_batch_size']} examples a step = {plan['processes']} process{several} x "
        f"micro-batch {plan['micro_batch_size']} x accumulation {plan['accumulation']}; examples "
        f"of up to {plan['length']} tokens, {plan['precision']}, tuning {plan['tuning']}, engine "
        f"{plan['engine']}"
    )
    yield from _notes(plan)
    yield ""
    yield from _memory(plan["memory"])
    yield ""
    yield from _gpus(plan["gpus"])
    yield from _changes(plan["changes"], plan["gpus"][0]["gpu"])
    yield ""
    yield from _time(plan)
    yield from _disk(plan["disk"])
    yield from _host(plan["host_memory"])


def _memory(memory: Values) -> Iterator[str]:
    yield f"Memory of each process: {_mib(memory['allocated'])} of tensors at the peak"
    yield f"  {when(memory)}"
    held = sorted(memory["held"].items(), key=lambda item: -item[1])
    yield from (f"  {_mib(size):>12}  {kind}" for kind, size in held)
    others = [
        f"{_mib(size)} {PHASES[phase]}"
        for phase, size in memory["phases"].items()
        if phase != memory["phase"]
    ]
    yield f"  other peaks: {', '.join(others)}"


def when(memory: Values) -> str:
    """Returns when in a step the peak is, as a clause."""
    phase, layer, module = PHASES[memory["phase"]], memory["layer"], memory["module"]
    if layer is not None:
        return f"{phase}, at layer {layer + 1} of {memory['num_layers']}"
    return f"{phase}, after {visible(module)}" if module else phase


def _gpus(gpus: list[Values]) -> Iterator[str]:
    rows = [("GPU", "memory", "a process shows", "fits", "largest micro-batch", "longest sequence")]
    for gpu in gpus:
        low, high = gpu["process"]
        longest = gpu["longest_sequence"]
        rows.append(
            (
                gpu["gpu"],
                _mib(gpu["memory"]),
                f"{low / MIB:,.0f} to {high / MIB:,.0f} MiB",
                "yes" if gpu["fits"] else "no",
                str(gpu["largest_micro_batch"] or "none"),
                "none" if longest is None else f"{longest:,}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def _changes(changes: list[Values], gpu: str) -> Iterator[str]:
    if not changes:
        return
    yield ""
    yield f"What changes it, on {gpu}:"
    for change in changes:
        fits = "fits" if change["fits"] else "does not fit"
        yield (f"  {_mib(change['allocated']):>12}  {change['setting']} ({fits}; {change['cost']})")


def _time(plan: Values) -> Iterator[str]:
    gpu, time, lengths = plan["gpus"][0]["gpu"], plan["time"], plan["lengths"]
    yield (
        f"Computing: {plan['flops_of_micro_batch'] / 1e12:,.3g} TFLOP for a micro-batch of the "
        f"longest examples"
    )
    if time is None:
        yield f"Time: no peak of {gpu} is known in {plan['precision']}"
        return
    low, high = time["share_of_peak"]
    yield (
        f"Time on {gpu}: {format_span(*time['seconds_of_a_step'])} a step, if it computes at "
        f"{low:.0%} to {high:.0%} of its peak"
    )
    if plan["seconds"] is not None:
        steps, took = lengths["num_steps"], format_span(*plan["seconds"])
        yield f"  {steps:,} steps: {took}, without evaluation"
    if lengths["tokens_per_epoch"] is not None:
        yield f"  {lengths['tokens_per_epoch']:,} tokens an epoch, without padding"
    sent = plan["bytes_sent"]
    if plan["processes"] > 1:
        yield (
            f"Sent by each GPU in a step: {format_bytes(sent['inside'])} inside its node, "
            f"{format_bytes(sent['between'])} to other nodes"
        )


def _disk(disk: Values) -> Iterator[str]:
    prepared, download = (
        "unknown" if disk[name] is None else format_bytes(disk[name])
        for name in ("prepared", "download")
    )
    light = disk["light_checkpoints"]
    weights = format_bytes(disk["checkpoint_weights"])
    alone = f"{light} of {weights} with weights alone, " if light else ""
    yield (
        f"Disk: {format_bytes(disk['run_directory'])} in the run directory: "
        f"{disk['resumable_checkpoints']} checkpoints of {format_bytes(disk['checkpoint'])}, "
        f"{alone}and the model of {format_bytes(disk['model'])}; prepared data {prepared}, "
        f"download {download}"
    )
    yield from _notes(disk)


def _host(host: Values) -> Iterator[str]:
    yield (
        f"Host memory: {format_bytes(host['process'])} for the main process, "
        f"{format_bytes(host['machine'])} for all processes of a node"
    )
    yield from _notes(host)


def _notes(values: Values) -> Iterator[str]:
    return (f"  note: {visible(note)}" for note in values["notes"])


def _mib(size: float) -> str:
    return f"{size / MIB:,.0f} MiB"
