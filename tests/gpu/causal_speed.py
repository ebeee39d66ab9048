"""Tokens a second, peak memory and MFU of a training loop on packed sequences."""

import statistics
from typing import Any

import torch
from causal_runs import free_memory, peak_bytes, size_of
from flops import FORMULA, mean_attended, operations_per_token, peak_of
from stage import Stage


def measure_ours(stage: Stage, run: Any, accelerator: Any) -> dict[str, Any]:
    """Returns the figures of the package's own loop, that of `trainer train`."""
    from speed import Ours

    from trainer.tracking.metric_lines import read_lines

    loop, size = Ours(run, accelerator), size_of(stage)
    free_memory(stage.device)
    loop.seconds(size.warm_up)
    seconds = loop.seconds(size.steps)
    tokens = tokens_of(run, size.warm_up, size.warm_up + size.steps)
    found = figures(stage, needed_of(run), seconds=seconds, tokens=tokens, steps=size.steps)
    losses = [line["loss"] for line in read_lines(run.directory / "metrics.jsonl")]
    return {**found, "loss_first": losses[0], "loss_last": losses[-1]}


def check_losses(stage: Stage, name: str, found: dict[str, Any]) -> None:
    """Checks that the loss did not diverge; over so few steps it may rise a little."""
    first, last = found["loss_first"], found["loss_last"]
    stage.check(name, last < 1.01 * first, loss_first=first, loss_last=last)


def tokens_of(run: Any, first: int, last: int) -> int:
    """Returns the tokens of the examples in steps `first` to `last`."""
    lengths = run.splits["train"].lengths
    return int(sum(lengths[run.order.examples(step)].sum() for step in range(first, last)))


def figures(
    stage: Stage, needed: dict[str, Any], *, seconds: float, tokens: int, steps: int
) -> dict[str, Any]:
    """Returns rate, memory and MFU of steps that need the operations of `needed_of`."""
    rate = tokens / seconds
    peak = peak_of(torch.cuda.get_device_name()) if stage.on_gpu else None
    return {
        "tokens_per_second": round(rate, 1),
        "seconds_a_step": seconds / steps,
        "steps": steps,
        "tokens": tokens,
        "peak_bytes": peak_bytes(stage.device),
        "mfu": None if peak is None else round(rate * needed["operations_per_token"] / peak, 4),
        **needed,
    }


def needed_of(run: Any) -> dict[str, Any]:
    """Returns the operations of a token of a run's model on its own examples."""
    split = run.splits["train"]
    positions = [split.ragged("position_ids")[index] for index in range(len(split))]
    labelled = sum(int(split.ragged("learned")[index][1:].sum()) for index in range(len(split)))
    model = run.model.get_base_model() if hasattr(run.model, "get_base_model") else run.model
    operations, numbers = operations_per_token(
        model,
        labelled_share=labelled / int(split.lengths.sum()),
        attended=mean_attended(positions),
    )
    return {"operations_per_token": operations, "of_the_formula": numbers}


def about_mfu(stage: Stage) -> dict[str, Any]:
    """Returns the formula, the peak in it, and the rate that the GPU reaches in a product."""
    if not stage.on_gpu:
        return {"formula": FORMULA, "peak": None}
    name = torch.cuda.get_device_name()
    return {"formula": FORMULA, "gpu": name, "peak": peak_of(name), "reached": product_rate()}


def product_rate(width: int = 8192) -> float:
    """Returns the operations a second of bf16 products of random matrices."""
    left, right = (torch.randn(width, width, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    taken: list[float] = []
    for _ in range(13):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.mm(left, right)
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) / 1000)
    return 2 * width**3 / statistics.median(taken[3:])
