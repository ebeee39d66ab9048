"""The Accelerator of a run: the processes that were promised, and a precision they can compute."""

import importlib.util
import os
import sys
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
from torch.nn.parallel import DistributedDataParallel

from trainer.distributed.environment_variables import whole_number
from trainer.distributed.rendezvous import meeting
from trainer.distributed.timeouts import PREPARATION, step_time, wait_at_most
from trainer.engines.deepspeed import check_compiler, check_deepspeed_file, fill_in_deepspeed
from trainer.engines.extension_locks import remove_stale_locks, use_own_folder
from trainer.engines.fsdp2 import check_mesh, fill_in_fsdp, layer_classes, promised_mesh
from trainer.engines.loss_scale import zero_scaler
from trainer.engines.micro_batch import accumulation
from trainer.engines.portable_state import base_optimizer
from trainer.engines.precision import Precision, resolve_precision
from trainer.engines.sharding import has_second_copy, mesh_of
from trainer.engines.topology import topology_of
from trainer.errors import ConfigError, LaunchError
from trainer.process.stop_request import StopRequest
from trainer.process.switches import restored_switches
from trainer.recipe.schema import Recipe

ENGINES = (
    DistributedType.NO,
    DistributedType.MULTI_CPU,
    DistributedType.MULTI_GPU,
    DistributedType.DEEPSPEED,
    DistributedType.FSDP,
)


@contextmanager
def launched(
    recipe: Recipe, directory: Path, stop: StopRequest | None = None
) -> Generator[Accelerator]:
    """Context manager: yields the Accelerator of a run, and undoes on leaving what it changed.

    Afterwards trackers are closed, the process group that it made is destroyed, Accelerate's state
    and the switches of the process are as before, and another run may follow in this process with
    another precision and engine. Raises what `build_accelerator` raises.

    Of several ranks, all wait for each other before they leave. One that leaves by an error waits
    for none and keeps its process group, whose destructor could hang: its process has to end.
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
    """Context manager: on leaving, Accelerate's objects share the state that they shared before."""
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
    """Destroys the process group, unless the process is a fork, as of a notebook: it may make the
    group once only."""
    if not dist.is_initialized() or accelerator.state.fork_launched:
        return
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        from deepspeed import comm

        comm.destroy_process_group()
    else:
        dist.destroy_process_group()


def build_accelerator(
    recipe: Recipe, directory: Path, stop: StopRequest | None = None
) -> Accelerator:
    """Returns the Accelerator, after asserting that it is what the launch promised.

    Once the ranks have met, `stop` hears of it when one of them leaves. Raises LaunchError for
    processes that did not come up or meet, or an engine that is not supported, and ConfigError for
    a precision that the device does not have.
    """
    check_promise()
    check_trackers(recipe.tracking.trackers)
    on_cpu = not torch.cuda.is_available()
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it looked
    precision = resolve_precision(recipe.precision)
    with_deepspeed = _asked_for("DEEPSPEED")
    if with_deepspeed:
        check_deepspeed_file()
        if on_cpu:  # where its collectives are an extension of its own
            check_compiler()
        _free_extensions()
    check_mesh()
    # Without a backend, DeepSpeed on CPUs makes as many worlds of one as there are processes.
    backend: dict[str, Any] = {"backend": "gloo"} if on_cpu and with_deepspeed else {}
    with meeting() as store:
        if stop is not None and store is not None:
            stop.share(store)
        # An earlier run in this process had its own precision.
        AcceleratorState._reset_state()  # pyright: ignore[reportPrivateUsage]
        accelerator = Accelerator(
            cpu=on_cpu and not with_deepspeed,
            mixed_precision="no" if precision == "fp32" else precision,
            log_with=list(recipe.tracking.trackers) or None,
            project_config=ProjectConfiguration(
                str(directory), logging_dir=str(directory / "tensorboard")
            ),
            kwargs_handlers=[
                DistributedDataParallelKwargs(broadcast_buffers=False),
                InitProcessGroupKwargs(timeout=step_time(), **backend),
            ],
        )
    wait_at_most(PREPARATION)
    promised = whole_number("WORLD_SIZE", 1)
    if accelerator.num_processes != promised:
        raise LaunchError(
            f"the launch promised {promised} processes and {accelerator.num_processes} came up; "
            f"use `accelerate launch --config_file accelerate_configs/cpu-2.yaml` on CPUs"
        )
    if accelerator.distributed_type not in ENGINES:
        raise LaunchError(
            f"{accelerator.distributed_type.value} is not supported yet; launch with "
            f"accelerate_configs/ddp.yaml"
        )
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        fill_in_deepspeed(accelerator, recipe)
    if _asked_for("FSDP"):
        fill_in_fsdp(accelerator, recipe, precision)
    if recipe.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        # Else torch fills each new tensor, and so gigabytes of DeepSpeed's buckets at every step.
        memory: Any = torch.utils.deterministic
        memory.fill_uninitialized_memory = False
    return accelerator


def prepare(
    accelerator: Accelerator, objective: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Returns objective and optimizer as the engine of the launch wraps them."""
    if accelerator.distributed_type == DistributedType.FSDP:
        plugin: Any = accelerator.state.fsdp_plugin
        plugin.auto_wrap_policy = transformer_auto_wrap_policy
        plugin.transformer_cls_names_to_wrap = layer_classes(objective)
    wrapped, optimizer = accelerator.prepare(objective, optimizer)
    wait_at_most(PREPARATION)  # also in the groups that an engine made
    scaler = zero_scaler(wrapped)
    if scaler is not None:
        scaler.raise_error_at_min_scale = False  # the loop says which step diverged
    return wrapped, optimizer


def check_engine(
    accelerator: Accelerator,
    objective: nn.Module,
    optimizer: Any,
    *,
    micro_batch_size: int,
    recipe: Recipe,
    precision: Precision,
    made: torch.optim.Optimizer,
) -> None:
    """Raises LaunchError unless the engine does what the recipe says, and over all the processes.

    `made` is the optimizer before it was wrapped.
    """
    engine: Any = objective
    ranks = topology_of(accelerator).dp_size
    steps = accumulation(recipe, micro_batch_size, ranks)
    if accelerator.distributed_type == DistributedType.DEEPSPEED:
        found = {
            "processes": engine.dp_world_size,
            "micro-batch size": engine.train_micro_batch_size_per_gpu(),
            "accumulation": engine.gradient_accumulation_steps(),
            "clipping": engine.gradient_clipping(),
            "bf16": bool(engine.bfloat16_enabled()),
            "fp16": bool(engine.fp16_enabled()),
            "optimizer": type(base_optimizer(optimizer)).__name__,
            "second copy": has_second_copy(objective),
        }
        promised = {
            "processes": ranks,
            "micro-batch size": micro_batch_size,
            "accumulation": steps,
            "clipping": recipe.optimizer.max_grad_norm or 0.0,
            "bf16": precision == "bf16",
            "fp16": precision == "fp16",
            "optimizer": type(made).__name__,
            "second copy": engine.zero_hpz_partition_size() > 1,
        }
    elif accelerator.distributed_type == DistributedType.FSDP:
        meshes = {mesh_of(parameter) for parameter in objective.parameters()}
        found = {"mesh": meshes}
        promised = {"mesh": {promised_mesh(accelerator.num_processes)}}
    else:
        found = {"wrapped": isinstance(objective, DistributedDataParallel)}
        promised = {"wrapped": accelerator.num_processes > 1}
    wrong = [
        f"{name} is {found[name]} and should be {promised[name]}"
        for name in promised
        if found[name] != promised[name]
    ]
    if wrong:
        raise LaunchError(f"the engine would train something else: {'; '.join(wrong)}")


def _free_extensions() -> None:
    folder = use_own_folder()
    if folder is not None and os.environ.get("LOCAL_RANK", "0") == "0":
        for lock in remove_stale_locks(folder):
            print(f"removed {lock}, which a killed process had left", file=sys.stderr)


def _asked_for(engine: str) -> bool:
    return os.environ.get(f"ACCELERATE_USE_{engine}", "false").lower() == "true"


def check_trackers(trackers: tuple[str, ...]) -> None:
    """Raises ConfigError for a tracker that is not installed: Accelerate would leave it out."""
    for name in trackers:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"tracking.trackers: {name} is not installed; pip install {name}")


def check_promise() -> None:
    """Raises LaunchError where a launcher was asked for several processes and started one, or for
    more than there are GPUs.

    On CPUs `accelerate launch --num_processes 2` does so without a word: it sets an address for
    them to meet at, and no rank.
    """
    here, gpus = whole_number("LOCAL_WORLD_SIZE", 1), torch.cuda.device_count()
    if gpus and here > gpus:  # Accelerate would give several ranks the same one
        raise LaunchError(
            f"the launch asks for {here} processes on {gpus} GPUs; set --num_processes"
        )
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ
    if launched and "MASTER_ADDR" in os.environ and "WORLD_SIZE" not in os.environ:
        raise LaunchError(
            "accelerate launch was asked for several processes and started one; for CPU ranks use "
            "--config_file accelerate_configs/cpu-2.yaml, for one process unset MASTER_ADDR"
        )
