"""Measures on each rank what the engine of a launch holds, for each of several recipes.

Arguments: a folder with recipes as JSON, named *.recipe.json. Rank N writes NAME.held-N.json beside
each: the parameters before the engine, the bytes by what they hold, those of all tensors at the end
of a backward, and under ZeRO-1 and 2 the most during an update.
"""

import gc
import json
import os
import sys
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from trainer.assembly import engine as engines
from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.engines.portable_state import base_optimizer
from trainer.loop import micro_batches_of_step, optimizer_step
from trainer.tasks.recipe import parse_recipe


def tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if not value.is_meta:  # DeepSpeed remembers shapes as such
            yield value.to_local() if isinstance(value, DTensor) else value
    elif isinstance(value, dict):
        for part in value.values():
            yield from tensors(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from tensors(part)


def stored_bytes(found: Iterable[Any]) -> int:
    storages = [one.untyped_storage() for one in tensors(list(found))]
    return sum({one.data_ptr(): one.nbytes() for one in storages if one.nbytes()}.values())


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


class Peak(TorchDispatchMode):
    """Keeps the most bytes that storages took at once, beginning with those of some tensors."""

    def __init__(self, first: Iterable[Any]) -> None:
        super().__init__()
        self.live: dict[int, int] = {}
        self.now = self.most = 0
        for one in tensors(list(first)):
            self._count(one)

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if id(storage) not in self.live:
            self.live[id(storage)] = storage.nbytes()
            self.now += storage.nbytes()
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._freed, id(storage))

    def _freed(self, key: int) -> None:
        self.now -= self.live.pop(key)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor):
                self._count(one)
        return result


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
                gc.collect()
                gradients = [p.grad for p in run.objective.parameters()]
                gradients += [zero.averaged_gradients, zero.grads_in_partition]
                found = [one for one in gc.get_objects() if isinstance(one, Tensor)]
                held["before_update"] = stored_bytes([*found, *gradients])
                with Peak([*found, *gradients]) as peak:
                    del found, gradients
                    result = step_of_zero(*positional, **named)
                held["in_update"] = peak.most
                return result

            zero.step = watched_step
        window = micro_batches_of_step(run, accelerator, 2)
        optimizer_step(run, accelerator, window, step=3)
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
