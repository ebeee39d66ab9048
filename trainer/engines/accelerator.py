"""The Accelerator of a run: its processes and its engine, from the start of the run to its end."""

import logging
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState, GradientState
from accelerate.utils import (
    DistributedDataParallelKwargs,
    DistributedType,
    InitProcessGroupKwargs,
    ProjectConfiguration,
)
from torch import distributed as dist
from torch import nn
from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

from trainer.distributed.rendezvous import meeting
from trainer.distributed.timeouts import PREPARATION, step_time, wait_at_most
from trainer.engines.deepspeed import check_compiler, check_deepspeed_file, fill_in_deepspeed
from trainer.engines.deepspeed_state import allow_any_loss_scale
from trainer.engines.extension_locks import remove_stale_locks, use_own_folder
from trainer.engines.fsdp2 import check_mesh, fill_in_fsdp, layer_classes
from trainer.engines.launch import asks_for_deepspeed, asks_for_fsdp
from trainer.engines.launch_checks import check_launch, check_processes
from trainer.engines.precision import Precision, resolve_precision
from trainer.process.stop_request import StopRequest
from trainer.process.switches import restored_switches
from trainer.recipe.schema import Recipe

LOG = logging.getLogger("trainer")
_KEPT_GROUPS: list[Any] = []
"""Destroyed process groups, kept from being freed: gloo's destructor joins a thread that may wait
for the interpreter's lock, which the caller of the destructor holds."""


@contextmanager
def launched(
    recipe: Recipe, directory: Path, stop: StopRequest | None = None
) -> Generator[Accelerator]:
    """Context manager: yields the Accelerator of a run, and undoes its changes on exit.

    On exit it closes trackers, destroys the process group that it created, and restores
    Accelerate's state and the switches of the process. Another run may then follow in this process,
    with another precision and engine. Raises the errors of `build_accelerator`.

    Several ranks wait for each other before they exit. A rank that exits with an error does not
    wait, and keeps its process group, whose destructor could hang: its process must end.
    """
    with restored_switches(), _restored_state():
        had_group = dist.is_initialized()
        accelerator = build_accelerator(recipe, directory, stop)
        failed = True
        try:
            yield accelerator
            accelerator.wait_for_everyone()
            failed = False
        finally:
            if not (failed and accelerator.num_processes > 1):
                for tracker in accelerator.trackers:
                    tracker.finish()
                if not had_group:
                    _destroy_group(accelerator)


@contextmanager
def _restored_state() -> Generator[None]:
    """Context manager: restores the state that Accelerate's objects share."""
    shared: list[dict[str, Any]] = [
        kind._shared_state  # pyright: ignore[reportPrivateUsage]
        for kind in (PartialState, AcceleratorState, GradientState)
    ]
    before = [dict(state) for state in shared]
    try:
        yield
    finally:
        for state, entries in zip(shared, before, strict=True):
            state.clear()
            state.update(entries)


def _destroy_group(accelerator: Accelerator) -> None:
    """Destroys the process group, except in a fork of a notebook, which can create a group only
    once."""
    if not dist.is_initialized() or accelerator.state.fork_launched:
        return
    if accelerator.num_processes > 1:
        _KEPT_GROUPS.append(dist.group.WORLD)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from deepspeed import comm

        comm.destroy_process_group()
    else:
        dist.destroy_process_group()


def build_accelerator(
    recipe: Recipe, directory: Path, stop: StopRequest | None = None
) -> Accelerator:
    """Returns the Accelerator, after checking it against the launch and the recipe.

    Changes switches of the process, which `launched` restores. Once the ranks have met, they share
    the stop request `stop`. Raises LaunchError if processes did not start or meet, or if the engine
    is not supported, and ConfigError if the device or the engine cannot train the recipe.
    """
    check_launch()
    on_cpu = not torch.cuda.is_available()
    precision = resolve_precision(recipe.precision)
    _prepare_engine(on_cpu=on_cpu)
    with meeting() as store:
        if stop is not None and store is not None:
            stop.share(store)
        accelerator = _new_accelerator(directory, precision, on_cpu=on_cpu)
    wait_at_most(PREPARATION)
    check_processes(accelerator)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        fill_in_deepspeed(accelerator, recipe)
    if asks_for_fsdp():
        fill_in_fsdp(accelerator, recipe, precision)
    if recipe.deterministic:
        _compute_deterministically()
    return accelerator


def wrap(
    accelerator: Accelerator, objective: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Returns objective and optimizer wrapped by the engine of the launch."""
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin: Any = accelerator.state.fsdp_plugin
        plugin.auto_wrap_policy = transformer_auto_wrap_policy
        plugin.transformer_cls_names_to_wrap = layer_classes(objective)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    wait_at_most(PREPARATION)  # also in the groups that the engine made
    allow_any_loss_scale(wrapped)
    return wrapped, optimizer


def _prepare_engine(*, on_cpu: bool) -> None:
    """Checks and prepares what the engine reads or compiles when it starts."""
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # otherwise DeepSpeed guesses, and warns
    if asks_for_deepspeed():
        check_deepspeed_file()
        if on_cpu:  # on CPUs DeepSpeed compiles its collectives
            check_compiler()
        folder = use_own_folder()
        if folder is not None and os.environ.get("LOCAL_RANK", "0") == "0":
            for lock in remove_stale_locks(folder):
                LOG.warning("removed %s, a lock that a killed process left behind", lock)
    check_mesh()


def _new_accelerator(directory: Path, precision: Precision, *, on_cpu: bool) -> Accelerator:
    with_deepspeed = asks_for_deepspeed()
    # Without a backend, DeepSpeed on CPUs puts each process into a world of its own.
    backend: dict[str, Any] = {"backend": "gloo"} if on_cpu and with_deepspeed else {}
    # An earlier Accelerator in this process had its own precision.
    AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
    return Accelerator(
        cpu=on_cpu and not with_deepspeed,
        mixed_precision="no" if precision == "fp32" else precision,
        project_config=ProjectConfiguration(str(directory)),
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False),
            InitProcessGroupKwargs(timeout=step_time(), **backend),
        ],
    )


def _compute_deterministically() -> None:
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Otherwise torch fills every new tensor, including gigabytes of DeepSpeed's buckets per step.
    memory: Any = torch.utils.deterministic
    memory.fill_uninitialized_memory = False
