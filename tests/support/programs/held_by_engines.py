"""Measures on each rank what the engine of a launch holds, for each of several recipes.

Arguments: a folder with recipes as JSON, named *.recipe.json. Rank N writes NAME.held-N.json beside
each: the parameters before the engine, the bytes by what they hold, those of all tensors at the end
of a backward, and under ZeRO-1 and 2 the most during an update.
"""

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor
from torch import distributed as dist

from trainer.assembly import engine as engines
from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.engines.portable_state import base_optimizer
from trainer.loop import micro_batches_of_step, optimizer_step
from trainer.tasks.recipe import parse_recipe

sys.path.insert(0, str(Path(__file__).parents[2]))
from support.live_bytes import Peak, stored_bytes


def moments_of(optimizer: torch.optim.Optimizer) -> int:
    states: list[dict[str, Any]] = list(optimizer.state.values())
    return stored_bytes(value for state in states for k, value in state.items() if k != "step")


def states_of(objective: Any, base: torch.optim.Optimizer) -> dict[str, int]:
    parameters = list(objective.parameters())
    zero, masters = getattr(objective, "optimizer", None), 0
    weights, gradients = stored_bytes(parameters), [p.grad for p in parameters]
    if hasattr(zero, "single_partition_of_fp32_groups"):
        gradients += [zero.grads_in_partition, zero.averaged_gradients, zero.all_grad_tensors]
        masters = stored_bytes(zero.single_partition_of_fp32_groups)
    elif hasattr(zero, "fp32_partitioned_groups_flat"):
        weights = stored_bytes(p.ds_tensor for p in parameters)
        weights += stored_bytes(p.ds_secondary_tensor for p in parameters)
        gradients = [zero.grad_partitions_flat_buffer]
        masters = stored_bytes(zero.fp32_partitioned_groups_flat)
    held = {"weights": weights, "gradients": stored_bytes(gradients)}
    return {**held, "masters": masters, "moments": moments_of(base)}


def measure(recipe: Any, directory: Path) -> dict[str, Any]:
    """Returns the parameters before the engine, and what it holds at the end of a backward."""
    before: list[dict[str, Any]] = []
    speed_up = engines.speed_up

    def noted(model: Any, *positional: Any, **named: Any) -> None:
        before.extend(
            {
                "shape": list(getattr(p, "ds_shape", p.shape)),
                "dtype": str(p.dtype).removeprefix("torch."),
                "trainable": p.requires_grad,
            }
            for p in model.parameters()
        )
        speed_up(model, *positional, **named)

    engines.speed_up = noted
    with launched(recipe, directory) as accelerator:
        run = build_run(recipe, accelerator, directory)
        engines.speed_up = speed_up
        for step in range(2):
            window = micro_batches_of_step(run, accelerator, step)
            optimizer_step(run, accelerator, window, step=step + 1)
        held: dict[str, int] = {}
        base, backward = base_optimizer(run.optimizer), accelerator.backward

        def watched_backward(loss: Tensor) -> None:
            backward(loss)
            if not held:
                held.update(states_of(run.objective, base))
                gc.collect()
                held["everything"] = stored_bytes(
                    one for one in gc.get_objects() if isinstance(one, Tensor)
                )

        accelerator.backward = watched_backward
        zero = getattr(run.objective, "optimizer", None)
        if hasattr(zero, "single_partition_of_fp32_groups"):
            step_of_zero = zero.step

            def watched_step(*positional: Any, **named: Any) -> Any:
                dist.barrier()
                gc.collect()
                gradients = [p.grad for p in run.objective.parameters()]
                gradients += [zero.averaged_gradients, zero.grads_in_partition]
                found = [one for one in gc.get_objects() if isinstance(one, Tensor)]
                with Peak([*found, *gradients]) as peak:
                    del found, gradients
                    result = step_of_zero(*positional, **named)
                # The least of several, for gloo may still keep what the step before has sent.
                held["in_update"] = min(held.get("in_update", peak.most), peak.most)
                return result

            zero.step = watched_step
        for step in range(2, 6):
            window = micro_batches_of_step(run, accelerator, step)
            optimizer_step(run, accelerator, window, step=step + 1)
        width = run.model.config.hidden_size
    return {"parameters": before, "held": held, "width": width}


def main() -> None:
    folder = Path(sys.argv[1])
    if os.environ.get("ACCELERATE_USE_FSDP") == "true":  # which Accelerate ignores on CPUs
        PartialState(cpu=True)
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
    for file in sorted(folder.glob("*.recipe.json")):
        recipe = parse_recipe(json.loads(file.read_text()), "test")
        name = file.name.removesuffix(".recipe.json")
        found = measure(recipe, folder / name)
        rank = os.environ.get("RANK", "0")
        (folder / f"{name}.held-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
