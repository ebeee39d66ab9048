"""What a plan traces without contents equals what real optimizer steps hold on a CPU, to the byte.

The real steps are those of `optimizer_step` on collated examples, with a log like that of the
trace. Three things are chosen so that they do not differ: each micro-batch has the longest example
of the data and the shortest, so that there is padding where the task pads; the vocabulary is too
small for sparse gradients; every step is clipped. The trace gets the number of targets of the
real micro-batch, where a plan takes the most that there can be. Neither sees what a kernel
allocates and frees by itself.
"""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
from support.task_cases import CASES

from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.loop import optimizer_step
from trainer.models.output_layer import OutputLayer
from trainer.planning.trace.ledger import add_up
from trainer.planning.trace.memory import CONSTANTS, WEIGHTS
from trainer.planning.trace.model import planned_model
from trainer.planning.trace.step import BATCH, GRADIENTS, LOSS, MOMENTS, Shape, trace_step
from trainer.planning.trace.storages import ACTIVATIONS, Storages
from trainer.tasks.recipe import parse_recipe

NAMES = (*CASES, "causal_lm-instructions-packed")
MODES = ("full", "head_only", "lora", "qlora", "int8_lora")
FEW = [  # task, tuning mode, checkpointing, micro-batch
    ("classification", "full", False, 4),
    ("classification", "head_only", False, 8),
    ("classification-llama", "qlora", True, 4),
    ("masked_lm", "full", True, 8),
    ("masked_lm-pairs", "full", False, 8),
    ("causal_lm", "full", False, 4),
    ("causal_lm-instructions", "qlora", False, 8),
    ("causal_lm-instructions-packed", "lora", True, 4),
    ("question_answering", "int8_lora", False, 4),
    ("question_answering-llama", "lora", False, 8),
]
GLOBAL = 8
"""Examples of a step; smaller micro-batches accumulate."""


def recipe_of(name, mode, *, checkpointing, micro_batch_size):
    case = CASES[name.removesuffix("-packed")]
    values = case.recipe()
    values["model"] |= {
        "gradient_checkpointing": checkpointing,
        # Of a small vocabulary, a CPU makes no sparse gradients.
        "tokenizer": {**values["model"]["tokenizer"], "vocab_size": 200},
    }
    values["tuning"] = {"mode": mode}
    if name.endswith("-packed"):
        values["task"] = {**values["task"], "packing": True}
    if case.builtin == "nli":
        values["task"] = {**values["task"], "labels": ["contradiction", "entailment", "neutral"]}
    values["batch"] = {
        "global_batch_size": GLOBAL,
        "micro_batch_size": micro_batch_size,
        "max_seq_length": 72 if case.builtin in ("instructions", "passages") else 24,
    }
    values["optimizer"]["max_grad_norm"] = 1e-9  # so that every step is clipped
    return parse_recipe(values, name)


def batches_of(run):
    """Returns the micro-batches of a step: their examples are the longest one, and the shortest."""
    train, size = run.splits["train"], run.micro_batch_size
    order = np.argsort(train.lengths, kind="stable")
    ids = np.append(np.resize(order[-1], size - 1), order[0])
    num_batches = run.recipe.batch.global_batch_size // size
    return [run.task.collate(train, ids, 1) for _ in range(num_batches)]


def real_steps(run, accelerator):
    """Takes two optimizer steps; returns their log, and one of the micro-batches."""
    run.objective.train()
    storages, optimizer = Storages(), run.optimizer.optimizer

    def makes(kind):
        def begin(*_):
            storages.kind = kind

        return begin

    forward = run.rank_times.forward

    @contextmanager
    def forward_then_backward():
        storages.begin("forward")
        storages.kind = ACTIVATIONS
        with forward():
            yield
        storages.begin("backward")

    run.rank_times.forward = forward_then_backward
    for module in run.model.modules():
        if isinstance(module, OutputLayer):
            module.register_forward_pre_hook(makes(LOSS))
            module.register_forward_hook(makes(ACTIVATIONS))
    optimizer.register_step_pre_hook(makes(MOMENTS))
    optimizer.register_step_post_hook(makes(ACTIVATIONS))
    unscale = accelerator.unscale_gradients  # the first thing after the last backward

    def unscale_gradients():
        storages.begin("optimizer")
        unscale()

    accelerator.unscale_gradients = unscale_gradients
    with storages:
        storages.begin("loading")
        for tensor in (*run.model.parameters(), *run.model.buffers()):
            storages.rename(tensor, WEIGHTS)
        for tensor in constants(run.model):
            storages.rename(tensor, CONSTANTS)
        for parameter in run.parameters.values():
            parameter.register_post_accumulate_grad_hook(
                lambda one: storages.rename(one.grad, GRADIENTS)
            )
        with storages.making(BATCH):
            batches = batches_of(run)
        for step in (1, 2):
            storages.kind = BATCH  # the numbers of a step
            optimizer_step(run, accelerator, batches, step=step)
    return storages.log, batches[0]


def constants(model):
    """Yields what bitsandbytes keeps beside its weights."""
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code, state.offset)
            yield from (state.state2.absmax, state.state2.code)
        scales = getattr(getattr(module, "weight", None), "SCB", None)
        if scales is not None:
            yield scales


def planned_log(recipe, numbers, batch, num_micro_batches):
    """Returns the log of the trace of micro-batches like `batch`."""
    planned = planned_model(recipe, numbers, "fp32", on_gpu=False)
    size, length = batch.inputs["input_ids"].shape
    full = planned.task.full_batch(size, length)
    assert sizes(full.inputs) == sizes(batch.inputs)
    assert sizes(full.targets) == sizes(batch.targets)
    assert (full.counts >= batch.counts).all()
    planned.task.full_batch = lambda *_: batch  # with as many targets as there are
    shape = Shape(micro_batch_size=size, length=length, num_micro_batches=num_micro_batches)
    return trace_step(planned, shape, recipe.optimizer, "fp32", on_gpu=False).log


def sizes(tensors):
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}


def check(name, mode, checkpointing, micro_batch_size, folder):
    """Compares the peak of each phase of the second of two steps, by what is held then."""
    recipe = recipe_of(name, mode, checkpointing=checkpointing, micro_batch_size=micro_batch_size)
    with launched(recipe, folder) as accelerator:
        run = build_run(recipe, accelerator, folder)
        log, batch = real_steps(run, accelerator)
        numbers = copy.deepcopy(run.model.config)
    real = add_up(log).peaks
    planned = add_up(planned_log(recipe, numbers, batch, GLOBAL // micro_batch_size)).peaks
    for phase in ("forward", "backward", "optimizer"):
        assert real[phase].held == planned[phase].held
        assert real[phase].allocated == planned[phase].allocated > 10**5


@pytest.mark.parametrize(("name", "mode", "checkpointing", "micro_batch_size"), FEW)
def test_a_traced_step_holds_what_a_real_one_does(
    name, mode, checkpointing, micro_batch_size, tmp_path
):
    check(name, mode, checkpointing, micro_batch_size, tmp_path)


def test_each_task_and_mode_is_among_the_few():
    assert {name for name, *_ in FEW} == set(NAMES)
    assert {mode for _, mode, *_ in FEW} == set(MODES)


@pytest.mark.slow
@pytest.mark.parametrize("micro_batch_size", [8, 4])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("name", "mode"),
    [
        (name, mode)
        for name in NAMES
        for mode in MODES
        if mode != "head_only"
        or not CASES[name.removesuffix("-packed")].task["name"].endswith("lm")
    ],
)
def test_every_task_and_mode(name, mode, checkpointing, micro_batch_size, tmp_path):
    check(name, mode, checkpointing, micro_batch_size, tmp_path)
