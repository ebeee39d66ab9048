"""The measured part of scaling.py: what real engines hold, send and take on gloo ranks of one CPU.

A Llama from random weights, two micro-batches a step, bf16, two and four ranks through `accelerate
launch`. Every collective that a step calls is counted, tensors are found by walking the engine, and
the loopback device tells what went over the wire. Seconds are those of two ranks, one core each.
"""

import functools
import gc
import inspect
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from trainer.planning.collectives import Operation, Volume, collectives, sent_bytes
from trainer.planning.engine_bytes import engine_memory
from trainer.planning.engine_steps import Work, step_seconds
from trainer.planning.held_memory import PlannedParameter
from trainer.planning.launches import LIVE, Engine, PlannedLaunch
from trainer.recipe.training import Optimizer

ROOT = Path(__file__).parents[2]
RESULTS = Path(__file__).parent / "results" / "scaling.json"
NUM_LAYERS, WIDTH, ACCUMULATION = 6, 512, 2
SMALL = 4_000_000
CASES: list[tuple[Engine, str, int, int, int]] = [  # engine, configuration, ranks, node, live
    ("ddp", "cpu-2", 2, 8, LIVE),
    ("zero1", "zero1", 2, 8, LIVE),
    ("zero2", "zero2", 2, 8, LIVE),
    ("zero3", "zero3", 2, 8, LIVE),
    ("ddp", "cpu-2", 4, 8, LIVE),
    ("zero1", "zero1", 4, 8, LIVE),
    ("zero2", "zero2", 4, 8, LIVE),
    ("zero3", "zero3", 4, 8, LIVE),
    ("zero3", "zero3", 2, 8, SMALL),
    ("hpz", "zero3", 4, 2, LIVE),
    ("hpz", "zero3", 4, 2, SMALL),
]
COUNTED = {
    "all_reduce": "tensor",
    "all_gather_into_tensor": "input_tensor",
    "reduce_scatter_tensor": "input",
}
NAMES: dict[str, Operation] = {
    "all_reduce": "all_reduce",
    "all_gather_into_tensor": "all_gather",
    "reduce_scatter_tensor": "reduce_scatter",
}


class Counter:
    """Counts what collectives of torch.distributed send, as a ring would."""

    def __init__(self) -> None:
        self.counting, self.sent, self.calls = False, 0.0, 0
        self.watching: Callable[[], None] = lambda: None
        for name, argument in COUNTED.items():
            setattr(dist, name, self._counted(name, argument))

    def _counted(self, name: str, argument: str) -> Callable[..., Any]:
        function = getattr(dist, name)
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*positional: Any, **named: Any) -> Any:
            given = signature.bind(*positional, **named).arguments
            if self.counting:
                self.watching()
                ranks = dist.get_world_size(given.get("group"))
                num_bytes = given[argument].nbytes
                num_bytes *= ranks if name.startswith("all_gather") else 1
                self.sent += sent_bytes(NAMES[name], num_bytes, ranks)
                self.calls += 1
            return function(*positional, **named)

        return call


def recipe_values(ranks: int) -> dict[str, Any]:
    return {
        "seed": 1,
        "model": {
            "architecture": {
                "model_type": "llama",
                "hidden_size": WIDTH,
                "intermediate_size": 2048,
                "num_hidden_layers": NUM_LAYERS,
                "num_attention_heads": 8,
                "num_key_value_heads": 8,
            },
            "initialization": "random",
            "tokenizer": {"train": "bpe", "vocab_size": 512},
        },
        "task": {"name": "causal_lm", "generation": {"num_examples": 0}},
        "data": {"source": {"builtin": "documents", "num_rows": 400}},
        "batch": {
            "global_batch_size": 2 * ACCUMULATION * ranks,
            "micro_batch_size": 2,
            "max_seq_length": 128,
        },
        "optimizer": {"name": "adamw", "learning_rate": 1e-4},
        "schedule": {"name": "constant", "steps": 30},
        "precision": "bf16",
        "evaluation": {"baseline": False},
        "tracking": {"trackers": []},
    }


def tensors(value: Any) -> Iterator[Tensor]:
    """Yields the tensors in nested dictionaries and lists."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from tensors(part)


def stored_bytes(found: Iterable[Tensor | None]) -> int:
    """Returns the bytes of the storages of tensors, each once."""
    storages = [tensor.untyped_storage() for tensor in found if tensor is not None]
    return sum({one.data_ptr(): one.nbytes() for one in storages}.values())


def held_parts(run: Any, engine: Engine) -> dict[str, int]:
    """Returns the bytes that this rank holds now, by what they hold."""
    from trainer.engines.portable_state import base_optimizer

    parameters, objective = list(run.objective.parameters()), run.objective
    moments = stored_bytes(tensors(list(base_optimizer(run.optimizer).state.values())))
    gradients = [parameter.grad for parameter in parameters]
    if engine == "ddp":
        weights = stored_bytes(parameters)
        held = {"weights": weights, "gradients": stored_bytes(gradients), "master": 0}
        return held | {"moments": moments}
    zero = objective.optimizer
    if engine in ("zero1", "zero2"):
        weights = stored_bytes(parameter.data for parameter in parameters)
        gradients += list(tensors(zero.averaged_gradients))
        master = stored_bytes(zero.single_partition_of_fp32_groups)
    else:
        shards = [parameter.ds_tensor for parameter in parameters]
        weights = stored_bytes(shards)
        weights += stored_bytes(parameter.ds_secondary_tensor for parameter in parameters)
        gradients = [zero.grad_partitions_flat_buffer]
        master = stored_bytes(zero.fp32_partitioned_groups_flat)
    held = {"weights": weights, "gradients": stored_bytes(gradients), "master": master}
    return held | {"moments": moments}


def working_bytes(run: Any, engine: Engine) -> int:
    """Returns the bytes of ZeRO's buckets, or of whole weights, that are there just now."""
    if engine in ("zero1", "zero2"):
        buckets = run.objective.optimizer.ipg_buckets.values()
        return sum(stored_bytes(bucket.buffer) for bucket in buckets)
    return stored_bytes(parameter.data for parameter in run.objective.parameters())


def ddp_working_bytes(run: Any, batch: Any) -> int:
    """Returns DDP's buckets and the 16-bit copies of weights that autograd keeps for backward."""
    shapes = {tuple(weight.shape) for weight in run.model.parameters() if weight.ndim == 2}
    shapes |= {shape[::-1] for shape in shapes}
    copies: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes:
            copies.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run.objective.module(batch.inputs, batch.targets)
        logged = run.objective._get_ddp_logging_data()["rebuilt_bucket_sizes"]
        return stored_bytes(copies) + sum(map(int, logged.split(",")))


def wire_bytes() -> int:
    """Returns what the loopback device has sent since it is up."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    return next(int(line.split()[9]) for line in lines if line.strip().startswith("lo:"))


def measure_engine(engine: Engine, ranks: int, folder: Path) -> dict[str, Any]:
    """Returns what steps of a real run held, sent and took on this rank."""
    counter = Counter()  # before anything keeps the functions that it replaces

    from trainer.assembly.build import build_run
    from trainer.engines.accelerator import build_accelerator
    from trainer.engines.deepspeed_state import full_shape
    from trainer.engines.portable_state import base_optimizer
    from trainer.loop import micro_batches_of_step, optimizer_step
    from trainer.tasks.recipe import parse_recipe

    recipe = parse_recipe(recipe_values(ranks), "benchmark")
    accelerator = build_accelerator(recipe, folder)
    run = build_run(recipe, accelerator, folder)
    if engine == "ddp" and ranks > 1:  # whose own reducer calls no Python
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

        objective: Any = run.objective
        objective.register_comm_hook(None, allreduce_hook)
    taken: list[float] = []
    for step in range(14):
        window = micro_batches_of_step(run, accelerator, step)
        accelerator.wait_for_everyone()
        start = time.perf_counter()
        optimizer_step(run, accelerator, window, step=step + 1)
        accelerator.wait_for_everyone()
        taken.append(time.perf_counter() - start)
    taken = taken[3:]  # before, ZeRO-3 learns the order of the layers
    if ranks == 1:
        return {"seconds": taken}

    held: dict[str, int] = {}
    working = [0]
    updating: list[int] = []
    backward, base = accelerator.backward, base_optimizer(run.optimizer)
    update = base.step

    def watched_backward(loss: Tensor) -> None:
        backward(loss)
        held.update(held_parts(run, engine) if not held else {})

    def watched_update(*positional: Any, **named: Any) -> Any:
        updating.append(stored_bytes(one for one in gc.get_objects() if isinstance(one, Tensor)))
        return update(*positional, **named)

    accelerator.backward = watched_backward  # type: ignore[method-assign]
    base.step = watched_update  # type: ignore[method-assign]
    counter.watching = lambda: working.append(working_bytes(run, engine))
    window = micro_batches_of_step(run, accelerator, 14)
    dist.barrier()
    counter.counting, before = True, wire_bytes()
    optimizer_step(run, accelerator, window, step=15)
    counter.counting = False
    dist.barrier()
    wire = (wire_bytes() - before) / ranks
    before_the_update = ddp_working_bytes(run, window[0]) if engine == "ddp" else max(working)
    held["working"] = max(before_the_update, max(updating) - sum(held.values()))
    return {
        "parameters": run.parameter_counts.total,
        "shapes": [list(full_shape(weight)) for weight in run.objective.parameters()],
        "seconds": taken,
        "sent_bytes": counter.sent,
        "calls": counter.calls,
        "wire_bytes": wire,
        "held_bytes": held,
        "bytes_of_all_tensors_in_the_update": max(updating),
    }


def measure_parts(folder: Path) -> dict[str, Any]:
    """Returns what computing and collectives take alone, while the other rank does the same."""
    from trainer.assembly.build import build_run
    from trainer.engines.accelerator import build_accelerator
    from trainer.loop import micro_batches_of_step
    from trainer.tasks.recipe import parse_recipe

    recipe = parse_recipe(recipe_values(2), "benchmark")
    accelerator = build_accelerator(recipe, folder)
    run = build_run(recipe, accelerator, folder)
    objective: Any = run.objective
    batch = micro_batches_of_step(run, accelerator, 0)[0]

    def seconds(work: Callable[[], Any]) -> float:
        """Returns the least of 30, for other work may share the machine."""
        found: list[float] = []
        for _ in range(30):
            dist.barrier()
            start = time.perf_counter()
            work()
            found.append(time.perf_counter() - start)
        return min(found)

    found: dict[str, Any] = {"computing": {}, "update": {}, "links": {}}
    for name in ("autocast", "bf16"):
        module = objective.module if name == "autocast" else objective.module.bfloat16()
        losses: list[Tensor] = []

        def forward(module: Any = module, losses: list[Tensor] = losses) -> None:
            losses[:] = [module(batch.inputs, batch.targets)[0].sum()]

        forwards = seconds(forward)

        def both(forward: Callable[[], None] = forward, losses: list[Tensor] = losses) -> None:
            forward()
            losses[0].backward()

        backwards = seconds(both) - forwards
        found["computing"][name] = {"forward": forwards, "backward": backwards}
    for ranks in (1, 2):
        flat = torch.nn.Parameter(torch.zeros(run.parameter_counts.total // ranks))
        flat.grad = torch.zeros_like(flat)
        found["update"][str(ranks)] = seconds(torch.optim.AdamW([flat], fused=True).step)
    gather, scatter = (getattr(dist, name) for name in list(COUNTED)[1:])  # as DeepSpeed calls them
    for operation, dtype in (
        ("all_reduce", torch.float32),
        *((name, torch.bfloat16) for name in NAMES.values()),
    ):
        points: dict[str, float] = {}
        for num_bytes in (4096, 2**20, 2**23, 2**26):
            whole = torch.zeros(num_bytes // dtype.itemsize, dtype=dtype)
            part = whole[: whole.numel() // 2].clone()
            call = {
                "all_reduce": functools.partial(dist.all_reduce, whole),
                "all_gather": functools.partial(gather, whole, part),
                "reduce_scatter": functools.partial(scatter, part, whole),
            }[operation]
            points[str(num_bytes)] = seconds(call)
        found["links"][f"{operation} {str(dtype).removeprefix('torch.')}"] = points
    return {"parameters": run.parameter_counts.total, **found}


def launch(config: str, ranks: int, node_size: int, live: int, arguments: list[str]) -> Any:
    """Returns what rank 0 of a launch printed as its result."""
    with tempfile.TemporaryDirectory() as folder:
        options = ["--num_processes", str(ranks)]
        if config.startswith("zero"):
            settings = json.loads((ROOT / "ds_configs" / f"{config}.json").read_text())
            if config == "zero3":
                settings["zero_optimization"] |= {
                    "stage3_max_live_parameters": live,
                    "stage3_max_reuse_distance": live,
                }
            if node_size < 8:
                settings["zero_optimization"]["zero_hpz_partition_size"] = node_size
            file = Path(folder) / "deepspeed.json"
            file.write_text(json.dumps(settings))
            options += ["--deepspeed_config_file", str(file)]
        command = [sys.executable, "-m", "accelerate.commands.launch", *options, "--config_file"]
        command += [str(ROOT / "accelerate_configs" / f"{config}.yaml"), __file__, folder]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if not found:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(found[0].removeprefix("RESULT "))


def predicted_seconds(
    engine: Engine, parts: dict[str, Any], one_rank: float, *, overlapping: bool
) -> dict[str, float]:
    """Returns the simulated seconds of a step on two ranks.

    `of_the_model` takes the computing of model and optimizer alone, `of_one_rank` all that the
    engine does on one rank, whatever it is, and adds only what is sent.
    """
    computing = parts["computing"]["autocast" if engine == "ddp" else "bf16"]
    whole, half = parts["update"]["1"], parts["update"]["2"]
    update = whole if engine == "ddp" else half
    rest = one_rank - ACCUMULATION * sum(computing.values()) - whole + update
    kind = "float32" if engine == "ddp" else "bfloat16"

    def seconds(operation: Operation, num_bytes: float, _: int, calls: int) -> float:
        points = parts["links"][f"{operation} {kind}"]
        return calls * points["4096"] + num_bytes * points[str(2**26)] / 2**26

    def step(update: float) -> float:
        work = Work(**computing, update=update, num_layers=NUM_LAYERS, accumulation=ACCUMULATION)
        volume = Volume.of(engine, parts["parameters"])
        return step_seconds(engine, volume, 2, work, seconds, overlapping=overlapping)

    return {"of_the_model": step(update), "of_one_rank": step(rest)}


def planned_bytes(
    shapes: list[list[int]], engine: Engine, ranks: int, node_size: int, live: int
) -> dict[str, int]:
    """Returns the bytes that the plan states, by the names of `held_parts`."""
    launch = PlannedLaunch(
        engine=engine,
        processes=ranks,
        nodes=ranks // node_size if engine == "hpz" else 1,
        live=live,
        second_copy=node_size if engine == "hpz" else 0,
        overlapping=engine == "zero2",
    )
    parameters = [
        PlannedParameter(shape=tuple(shape), dtype=torch.float32, trainable=True)
        for shape in shapes
    ]
    optimizer = Optimizer(name="adamw", learning_rate=1e-4)
    held = engine_memory(parameters, launch, "bf16", optimizer, width=WIDTH).rank
    copies = 2 * sum(one.num_weights for one in parameters) if engine == "ddp" else 0
    return {
        "weights": held.weights,
        "gradients": held.gradients,
        "master": held.masters,
        "moments": held.moments,
        "working": max(held.buckets, held.update) + copies,
    }


def compared(
    found: dict[str, Any], engine: Engine, ranks: int, node_size: int, live: int
) -> dict[str, Any]:
    """Returns formulas beside what was counted, and counted over predicted."""
    parameters = found["parameters"]
    calls = collectives(
        engine,
        Volume.of(engine, parameters),
        ranks,
        accumulation=ACCUMULATION,
        node_size=node_size,
        live=live,
    )
    sent = sum(sent_bytes(*call) for call in calls)
    held = planned_bytes(found.pop("shapes"), engine, ranks, node_size, live)
    about = {"engine": engine, "ranks": ranks, "node_size": node_size, "live": live}
    return {
        **about,
        **found,
        "predicted_sent_bytes": sent,
        "predicted_held_bytes": held,
        "sent_ratio": round(found["sent_bytes"] / sent, 4),
        "held_ratios": {
            name: round(num_bytes / held[name], 4)
            for name, num_bytes in found["held_bytes"].items()
            if held[name]
        },
    }


def measure() -> None:
    """Measures all cases, prints them beside the formulas and writes the raw figures."""
    parts = launch("cpu-2", 2, 8, LIVE, ["parts"])
    print(json.dumps(parts), flush=True)
    cases: list[dict[str, Any]] = []
    for engine, config, ranks, node_size, live in CASES:
        found = launch(config, ranks, node_size, live, [engine, str(ranks)])
        case = compared(found, engine, ranks, node_size, live)
        if ranks == 2 and live == LIVE:
            alone = "gpu-1" if engine == "ddp" else config
            one_rank = launch(alone, 1, 8, LIVE, [engine, "1"])["seconds"]
            case["seconds_on_one_rank"] = one_rank
            case["predicted_seconds"] = {
                name: predicted_seconds(
                    engine, parts, min(one_rank), overlapping=name == "overlapping"
                )
                for name in ("overlapping", "in_turn")
            }
        else:
            del case["seconds"]  # more ranks than cores, or a setting that the simulation has not
        if "predicted_seconds" in case:
            taken = min(case["seconds"])
            case["predicted_over_measured"] = {
                way: {name: round(value / taken, 3) for name, value in predicted.items()}
                for way, predicted in case["predicted_seconds"].items()
            }
        cases.append(case)
        print(json.dumps(case), flush=True)
    versions = {name: version(name) for name in ("torch", "accelerate", "deepspeed")}
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "threads_a_rank": 1}
    result = {"cases": cases, "parts": parts, "versions": versions, "machine": machine}
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")


def main() -> None:
    """Runs on each rank: FOLDER parts, or FOLDER ENGINE RANKS."""
    folder = Path(sys.argv[1])
    engines: dict[str, Engine] = {case[0]: case[0] for case in CASES}
    if sys.argv[2] == "parts":
        result = measure_parts(folder)
    else:
        result = measure_engine(engines[sys.argv[2]], int(sys.argv[3]), folder)
    if os.environ.get("RANK", "0") == "0":
        print("\nRESULT " + json.dumps(result), flush=True)
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
