"""One optimizer step, traced: what it holds, when, and how much it computes, without contents."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils import clip_grads_with_norm_

from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.models.output_layer import OutputLayer
from trainer.models.parameters import trainable_parameters
from trainer.models.speedups.speed_up import speed_up
from trainer.planning.trace.cuda import ComputingLikeCuda, recompute_like_cuda, whole_sequences
from trainer.planning.trace.memory import allocate
from trainer.planning.trace.model import PlannedModel
from trainer.planning.trace.operations import Operations
from trainer.planning.trace.repeated_layers import (
    REPEATED,
    is_repeatable,
    num_copies,
    total,
    with_layers,
)
from trainer.planning.trace.state_alone import StateAlone
from trainer.planning.trace.storages import ACTIVATIONS, Event, Section, Storages
from trainer.planning.trace.two_steps import two_steps
from trainer.recipe.training import Optimizer
from trainer.tasks.base import Objective, Task
from trainer.tasks.batch import Batch

BATCH, GRADIENTS, MOMENTS, WORKSPACES = "batch", "gradients", "optimizer", "workspaces"
LOSS = "loss over the vocabulary"
WORKSPACE = 8320 * 2**10
"""Bytes that cuBLAS takes from the allocator for a thread's products, below compute capability 9.0
(c10's CUBLAS_WORKSPACE_CONFIG of :4096:2:16:8)."""


class UnequalLayersError(Exception):
    """The layers of a model differ in what they hold, so that none stands for the others."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The size of the batches of a step."""

    micro_batch_size: int
    length: int
    """Number of tokens of an example, with padding."""
    num_micro_batches: int = 1
    """Number of micro-batches of a step; all are on the device from its beginning."""
    evaluation_length: int | None = None
    """Number of tokens of the longest example that is evaluated; None if none is."""


@dataclass(frozen=True, kw_only=True)
class TracedStep:
    log: list[Event]
    """All that is allocated and freed from the first weight on. Phases are `loading` and, of each
    step, `forward`, `backward` and `optimizer`; at last `evaluation`."""
    flops: int
    """Floating-point operations of forward and backward of one micro-batch."""
    kernels: int
    """Operations of forward and backward of one micro-batch that a GPU launches one by one."""


def trace_step(
    planned: PlannedModel,
    shape: Shape,
    settings: Optimizer,
    precision: Precision,
    *,
    on_gpu: bool,
) -> TracedStep:
    """Returns what two steps and an evaluation of a planned model hold; the model has no use then.

    They do what `optimizer_step` does on one process, on a GPU below compute capability 9.0 or on a
    CPU. The first step has no moments before its end. Raises UnequalLayersError if the model has
    fewer layers than the real one and they differ.
    """
    model, task = planned.model, planned.task
    training = task.full_batch(shape.micro_batch_size, shape.length)
    evaluated = None
    if shape.evaluation_length is not None:
        evaluated = task.full_batch(2 * shape.micro_batch_size, shape.evaluation_length)
    num_selected = [0 if batch is None else int(batch.counts[0]) for batch in (training, evaluated)]
    trained = trainable_parameters(model)
    _speed_up(model, task, trained, on_gpu=on_gpu)
    if on_gpu:
        recompute_like_cuda(model)
    storages = Storages()
    operations = Operations(storages, on_gpu=on_gpu)
    with ExitStack() as stack:
        fake = FakeTensorMode(allow_non_fake_inputs=True)
        for mode in (whole_sequences(), operations.few_chunks(), fake, storages, operations):
            stack.enter_context(mode)
        if on_gpu:
            stack.enter_context(ComputingLikeCuda())
        storages.begin("loading")
        allocate(model, storages, unpacked=torch.float16, layers=planned.layers)
        trained = trainable_parameters(model)
        for parameter in trained.values():
            parameter.register_post_accumulate_grad_hook(partial(_rename_gradient, storages))
        stack.enter_context(storages.watching(model, planned.layers))
        _count_loss_apart(model, storages)
        owners = {
            id(parameter): index
            for index, layer in enumerate(planned.layers)
            for parameter in layer.parameters()
        }
        optimizer = StateAlone(trained, settings, storages, owners, at_once=on_gpu)
        if on_gpu:  # one for the thread of forward, one for that of backward
            storages.keep(WORKSPACES, WORKSPACE)
            storages.keep(WORKSPACES, WORKSPACE)
        objective = Objective(model, task)
        operations.num_selected = num_selected[0]
        with storages.making(BATCH):
            batch = _without_contents(training)
            for tensor in (*batch.inputs.values(), *batch.targets.values(), batch.counts):
                for _ in range(shape.num_micro_batches - 1):
                    storages.keep(BATCH, tensor.nbytes)
            counts = torch.stack([batch.counts]).sum(0)
            scale, sums = (batch.counts / counts).float(), torch.zeros_like(counts)
        operations.flops.clear()
        operations.kernels.clear()
        storages.begin("forward")
        with _autocast(precision):
            losses, outputs = objective(batch.inputs, batch.targets)
        storages.begin("backward")
        losses = losses * batch.counts.bool()
        ((losses * scale).sum() / 1).backward()
        sums += losses.detach()
        flops, kernels = operations.flops.copy(), operations.kernels.copy()
        storages.begin("optimizer")
        norm = _total_norm(trained, storages, owners, planned.repeats)
        clip_grads_with_norm_(trained.values(), 1.0, norm)
        with storages.making(MOMENTS):
            optimizer.step()
        optimizer.zero_grad()
        del losses, outputs, norm
        if evaluated is not None:
            operations.num_selected = num_selected[1]
            storages.begin("evaluation")
            objective.eval()
            with _autocast(precision), torch.no_grad():
                batch = _without_contents(evaluated)
                objective(batch.inputs, batch.targets)
    log, repeats = storages.log, planned.repeats
    if repeats is not None:
        if not is_repeatable(log):
            raise UnequalLayersError
        log = with_layers(log, repeats)
    return TracedStep(
        log=list(two_steps(log, accumulates=shape.num_micro_batches > 1)),
        flops=flops.total() if repeats is None else total(flops, repeats),
        kernels=kernels.total() if repeats is None else total(kernels, repeats),
    )


def _speed_up(
    model: nn.Module,
    task: Task,
    trained: dict[str, nn.Parameter],
    *,
    on_gpu: bool,
) -> None:
    """Changes the model as a run does, but for sparse gradients of embeddings, whose number of rows
    nobody knows."""
    speed_up(
        model,
        torch.optim.SGD(trained.values()),
        device=torch.device("cuda" if on_gpu else "cpu"),
        is_wrapped=True,
        needs_only_logits=task.needs_only_logits,
        tokens_per_step=0,
    )


def _total_norm(
    trained: dict[str, nn.Parameter],
    storages: Storages,
    owners: dict[int, int],
    repeats: int | None,
) -> Tensor:
    """Returns what `get_total_norm` does, whose norms are logged as those of the layers."""
    norms: list[Tensor] = []
    num_norms = 0
    for parameter in trained.values():
        if parameter.grad is None:
            continue
        index = owners.get(id(parameter))
        num_norms += 1 if repeats is None or index != REPEATED else num_copies(repeats)
        with storages.within(None if index is None else Section("optimizer", index)):
            norms.append(torch.linalg.vector_norm(parameter.grad))
    return torch.linalg.vector_norm(torch.empty(num_norms))


def _rename_gradient(storages: Storages, parameter: Tensor) -> None:
    storages.rename(cast(Tensor, parameter.grad), GRADIENTS)


def _count_loss_apart(model: nn.Module, storages: Storages) -> None:
    """Makes what the output layer makes, logits and their gradients, count as LOSS."""

    def before(*_: Any) -> None:
        storages.kind = LOSS

    def after(*_: Any) -> None:
        storages.kind = ACTIVATIONS

    for module in model.modules():
        if isinstance(module, OutputLayer):
            module.register_forward_pre_hook(before)
            module.register_forward_hook(after)


def _without_contents(batch: Batch) -> Batch:
    """Returns a batch of tensors of the same sizes, which the modes around the call see."""

    def emptied(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: _empty(tensor) for name, tensor in tensors.items()}

    return replace(
        batch,
        inputs=emptied(batch.inputs),
        targets=emptied(batch.targets),
        counts=_empty(batch.counts),
    )


def _empty(tensor: Tensor) -> Tensor:
    return torch.empty(tensor.shape, dtype=tensor.dtype)


def _autocast(precision: Precision) -> torch.autocast:
    dtype = COMPUTE_DTYPES[precision]
    return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)
