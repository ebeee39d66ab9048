"""What DDP and ZeRO hold and send on each of 1 to 1,024 GPUs, and how long a step waits for it.

    python tests/benchmarks/scaling.py             # the tables, on paper
    unshare -rn sh -c 'ip link set lo up && python tests/benchmarks/scaling.py --measure'

`--measure` runs the real engines on two and four gloo ranks and writes what they held, sent and
took, beside formulas and simulation, to results/scaling.json. A network of its own (unshare) keeps
other traffic out of what is counted on the wire.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from transformers import AutoModelForCausalLM

from trainer.models.architecture import shape_config
from trainer.planning.collectives import Volume, collectives, sent_within_and_between
from trainer.planning.engine_bytes import engine_memory
from trainer.planning.engine_steps import Work, ring_seconds, step_seconds
from trainer.planning.gpus import GPUS, Gpu
from trainer.planning.held_memory import PlannedParameter
from trainer.planning.launches import Engine, PlannedLaunch
from trainer.recipe.model import Model as ModelSection
from trainer.recipe.training import Optimizer

ENGINES: tuple[Engine, ...] = ("ddp", "zero1", "zero2", "zero3", "hpz")
RANKS = (1, 2, 4, 8, 16, 64, 256, 1024)
H100, T4 = GPUS["h100"], GPUS["t4"]
COMPUTE_SHARE = 0.4
"""Share of peak that is reached: an assumption."""
TOKENS = {"h100": 8192, "t4": 2048}
"""Of one micro-batch on one GPU: an assumption."""


@dataclass(frozen=True, kw_only=True)
class Model:
    name: str
    shapes: tuple[tuple[int, ...], ...]
    num_layers: int
    width: int

    @property
    def parameters(self) -> int:
        return sum(map(math.prod, self.shapes))


def _model(name: str, published: str) -> Model:
    """Returns the shapes of a model from its shipped numbers."""
    config = shape_config(ModelSection(name_or_path=published))
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = tuple(tuple(weight.shape) for weight in model.parameters())
    return Model(
        name=name, shapes=shapes, num_layers=config.num_hidden_layers, width=config.hidden_size
    )


MODELS = (
    _model("1B", "meta-llama/Llama-3.2-1B"),
    _model("8B", "meta-llama/Llama-3.1-8B"),
    _model("70B", "meta-llama/Llama-3.1-70B"),
)


def held_bytes(model: Model, engine: Engine, ranks: int) -> int:
    """Returns the bytes on each GPU in bf16 with AdamW, without activations.

    DDP computes under autocast, which keeps copies of the weights in 16 bits.
    """
    parameters = [
        PlannedParameter(shape=shape, dtype=torch.float32, trainable=True) for shape in model.shapes
    ]
    nodes = -(-ranks // 8)
    near = min(8, ranks) if engine == "hpz" else 0
    launch = PlannedLaunch(
        engine=engine,
        processes=ranks,
        nodes=nodes,
        overlapping=engine == "zero2",
        second_copy=near,
    )
    optimizer = Optimizer(name="adamw", learning_rate=1e-4)
    held = engine_memory(parameters, launch, "bf16", optimizer, width=model.width).rank
    return held.total + (2 * model.parameters if engine == "ddp" else 0)


def work_of(model: Model, engine: Engine, ranks: int, gpu: Gpu, accumulation: int) -> Work:
    """Returns the computing of 2 operations for each weight and token forward, and 4 backward.

    Attention's own products and recomputed activations are left out. The update reads and writes
    weights, gradients and moments once: 28 bytes a weight under DDP, 30 a weight's share in ZeRO.
    """
    forward = 2 * model.parameters * TOKENS[gpu.name] / (gpu.peaks["fp16"] * COMPUTE_SHARE)
    updated = 28 * model.parameters if engine == "ddp" else 30 * model.parameters / ranks
    return Work(
        forward=forward,
        backward=2 * forward,
        update=updated / gpu.memory_bandwidth,
        num_layers=model.num_layers,
        accumulation=accumulation,
    )


def waiting_share(
    model: Model, engine: Engine, ranks: int, gpu: Gpu, accumulation: int = 1
) -> float:
    """Returns the share of a step in which a GPU does not compute."""
    work = work_of(model, engine, ranks, gpu, accumulation)
    link = partial(ring_seconds, gpu.links)
    node_size = gpu.links.node_size
    whole = step_seconds(
        engine, Volume.of(engine, model.parameters), ranks, work, link, node_size=node_size
    )
    return max(0.0, 1 - work.seconds / whole)


def smallest_fitting(model: Model, ranks: int, gpu: Gpu, share: float = 0.8) -> str:
    """Returns the first engine that leaves a `1 - share` of the memory to activations."""
    for engine in ENGINES[:4]:
        if held_bytes(model, engine, ranks) <= share * gpu.memory:
            return engine
    return "none"


def table(title: str, cell: Callable[[Model, Engine, int], str]) -> None:
    """Prints a Markdown table, a row for each model and engine."""
    print(f"\n{title}\n\n| | " + " | ".join(map(str, RANKS)) + " |\n" + "|---" * 9 + "|")
    for model in MODELS:
        for engine in ENGINES:
            cells = [cell(model, engine, ranks) for ranks in RANKS]
            print(f"| {model.name} {engine} | " + " | ".join(cells) + " |")


def print_tables() -> None:
    def memory(model: Model, engine: Engine, ranks: int) -> str:
        return f"{held_bytes(model, engine, ranks) / 1e9:.1f}"

    def traffic(accumulation: int) -> Callable[[Model, Engine, int], str]:
        def cell(model: Model, engine: Engine, ranks: int) -> str:
            calls = collectives(
                engine, Volume.of(engine, model.parameters), ranks, accumulation=accumulation
            )
            inside, between = sent_within_and_between(calls)
            return f"{inside / 1e9:.1f} + {between / 1e9:.1f}"

        return cell

    def waiting(gpu: Gpu, accumulation: int) -> Callable[[Model, Engine, int], str]:
        def cell(model: Model, engine: Engine, ranks: int) -> str:
            share = waiting_share(model, engine, ranks, gpu, accumulation)
            work = work_of(model, engine, ranks, gpu, accumulation)
            speed = accumulation * TOKENS[gpu.name] * (1 - share) / work.seconds
            return f"{share:.0%} ({speed:,.0f})"

        return cell

    table("GB on each GPU", memory)
    for accumulation in (1, 8):
        beside = f"accumulation {accumulation}"
        table(f"GB sent a step, in a node + between nodes of 8, {beside}", traffic(accumulation))
        for name, gpu in (("H100", H100), ("T4", T4)):
            title = f"Share of a step that waits (tokens/s of one GPU), {name}, {beside}"
            table(title, waiting(gpu, accumulation))
    print("\nSmallest engine that fits, 80 GB and 16 GB\n")
    for model in MODELS:
        for name, gpu in (("H100", H100), ("T4", T4)):
            print(model.name, name, [smallest_fitting(model, ranks, gpu) for ranks in RANKS])
    print("\nShare that waits on 64 H100 by Gb/s between nodes for each GPU, accumulation 1\n")
    for model in MODELS:
        for engine in ENGINES:
            links = {
                gigabits: replace(H100.links, between_bandwidth=gigabits * 1e9 / 8)
                for gigabits in (400, 100, 50, 25, 10, 3)
            }
            shares = {
                gigabits: waiting_share(model, engine, 64, replace(H100, links=link))
                for gigabits, link in links.items()
            }
            print(model.name, engine, {key: f"{share:.0%}" for key, share in shares.items()})


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--measure", action="store_true")
    if not arguments.parse_args().measure:
        print_tables()
        return
    from scaling_measured import measure

    measure()


if __name__ == "__main__":
    main()
