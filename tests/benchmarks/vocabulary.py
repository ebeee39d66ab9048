"""Time and memory of the loss of a large vocabulary, with all logits at once and in chunks.

    python tests/benchmarks/vocabulary.py --output tests/benchmarks/results/vocabulary.json

Forward and backward of one loss sum from [tokens, width] hidden states through a [words, width]
weight, both trained. Every variant of a case runs in turn in each round, in a process of its own;
a ratio is taken within its round. Memory is what the peak rises above hidden states and weight.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from trainer.tracking.resident_memory import peak_resident_bytes

VARIANTS = ("plain", "torch_sum", "torch_none", "chunked")
CASES = [  # precision, width, tokens
    ("fp32", 256, 4096),
    ("bf16", 256, 4096),
    ("fp32", 2048, 2048),
    ("bf16", 2048, 2048),
]
WORDS = 128_256


def loss_of(variant: str) -> Callable[..., Any]:
    """Returns a function of hidden, weight and targets that gives the summed loss."""
    from torch import nn
    from torch.nn import functional

    from trainer.models.linear_cross_entropy import CHUNK_SIZE, chunked_linear_cross_entropy

    def plain(hidden: Any, weight: Any, targets: Any) -> Any:
        logits = functional.linear(hidden, weight).float()
        return functional.cross_entropy(logits, targets, reduction="sum")

    def of_torch(hidden: Any, weight: Any, targets: Any) -> Any:
        options = nn.LinearCrossEntropyOptions(acc_policy="compact", batch_chunk_size=CHUNK_SIZE)
        reduction = variant.removeprefix("torch_")
        losses = functional.linear_cross_entropy(
            hidden, weight, targets, reduction=reduction, options=options
        )
        return losses.float().sum()

    def chunked(hidden: Any, weight: Any, targets: Any) -> Any:
        return chunked_linear_cross_entropy(hidden, weight, None, targets)

    return {"plain": plain, "chunked": chunked}.get(variant, of_torch)


def measure(variant: str, precision: str, width: int, tokens: int) -> dict[str, float]:
    """Returns the loss, the seconds of the second of two passes, and the bytes of the peak."""
    import torch

    loss = loss_of(variant)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    torch.manual_seed(0)
    hidden = torch.randn(tokens, width).to(dtype).requires_grad_()
    weight = torch.randn(WORDS, width, dtype=dtype).mul_(width**-0.5).requires_grad_()
    targets = torch.randint(0, WORDS, (tokens,))
    before = peak_resident_bytes()
    result: dict[str, float] = {}
    for _ in range(2):  # the first is the warm-up
        hidden.grad = weight.grad = None
        start, processor_start = time.perf_counter(), time.process_time()
        value = loss(hidden, weight, targets)
        forward = time.perf_counter() - start
        value.backward()
        result = {
            "loss": value.item(),
            "forward_seconds": forward,
            "seconds": time.perf_counter() - start,
            "processor_seconds": time.process_time() - processor_start,
        }
    return {**result, "gigabytes": (peak_resident_bytes() - before) / 1e9}


def run(variant: str, case: tuple[str, int, int], threads: int) -> dict[str, float]:
    """Returns what `measure` gives in a new process."""
    command = [sys.executable, __file__, "--one", variant, *map(str, case)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return json.loads(done.stdout)


def medians(rounds: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Returns medians by variant, and how many times less than plain logits each takes."""
    found: dict[str, dict[str, float]] = {}
    for variant in VARIANTS:
        own = [one[variant] for one in rounds]
        median = {name: statistics.median(each[name] for each in own) for name in own[0]}
        for name in ("seconds", "processor_seconds", "gigabytes"):
            ratios = [one["plain"][name] / one[variant][name] for one in rounds]
            median[f"times_less_{name}"] = statistics.median(ratios)
        found[variant] = {name: round(value, 2) for name, value in median.items()}
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--one", nargs=4, metavar=("VARIANT", "PRECISION", "WIDTH", "TOKENS"))
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--output", type=Path)
    given = arguments.parse_args()
    if given.one:
        variant, precision, width, tokens = given.one
        print(json.dumps(measure(variant, precision, int(width), int(tokens))))
        return

    machine = {"processor": platform.machine(), "threads": given.threads}
    versions = {"torch": version("torch"), "python": platform.python_version()}
    cases: list[dict[str, Any]] = []
    for case in CASES:
        precision, width, tokens = case
        rounds: list[dict[str, dict[str, float]]] = []
        for round_ in range(given.rounds):
            rounds.append({variant: run(variant, case, given.threads) for variant in VARIANTS})
            seconds = {name: round(one["seconds"], 2) for name, one in rounds[-1].items()}
            print(*case, round_, seconds, flush=True)
        about = {"precision": precision, "width": width, "tokens": tokens, "words": WORDS}
        seconds = {name: [round(one[name]["seconds"], 2) for one in rounds] for name in VARIANTS}
        cases.append({**about, "seconds": seconds, "median": medians(rounds)})
        for variant, median in cases[-1]["median"].items():
            print(*case, variant, median, flush=True)
        if given.output:  # after every case, for the wide ones take long
            result = {"cases": cases, "versions": versions, "machine": machine}
            given.output.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
