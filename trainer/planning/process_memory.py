"""The memory of one process: that of a traced step, with what the engine holds."""

import gc
import logging
from collections import Counter
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.errors import ConfigError, TrainerError
from trainer.planning.between_steps import between_steps
from trainer.planning.engine_bytes import engine_memory
from trainer.planning.held_memory import EngineMemory, PlannedParameter, planned_parameters
from trainer.planning.launches import SHARDED, PlannedLaunch
from trainer.planning.trace.ledger import Peak, add_up
from trainer.planning.trace.memory import WEIGHTS
from trainer.planning.trace.model import PlannedModel, num_layers, planned_model
from trainer.planning.trace.repeated_layers import REPEATED, TRACED, num_copies
from trainer.planning.trace.step import (
    GRADIENTS,
    MOMENTS,
    Shape,
    TracedStep,
    UnequalLayersError,
    trace_step,
)
from trainer.recipe.schema import Recipe
from trainer.tasks.base import Objective
from trainer.wording import reason_of

BUFFERS = "buffers of the engine"
ZERO = ("zero1", "zero2", "zero3", "hpz")
Peaks = Mapping[str, Peak]
"""The highest memory of each phase: loading, forward, backward, optimizer, evaluation, generation,
saving."""


@dataclass(frozen=True, kw_only=True)
class ProcessMemory:
    """What a process holds on its GPU; the process with most, if they differ."""

    peaks: Peaks
    reserved: int
    """Bytes that the allocator holds after two steps and an evaluation."""
    engine: EngineMemory
    parameters: tuple[PlannedParameter, ...]
    flops: int
    """Floating-point operations of forward and backward of a micro-batch."""
    kernels: int
    """Operations of all kinds that are launched for it."""
    equal_layers: bool
    """Whether one traced layer stands for all others."""

    @property
    def phase(self) -> str:
        """The phase of the highest peak."""
        return max(self.peaks, key=lambda phase: self.peaks[phase].allocated)

    @property
    def peak(self) -> Peak:
        return self.peaks[self.phase]


@dataclass(frozen=True, kw_only=True)
class TracedRecipe:
    """A traced step of a recipe, and what its model and task tell of other steps."""

    step: TracedStep
    parameters: tuple[PlannedParameter, ...]
    generated_tokens: int
    equal_layers: bool


def process_memory(
    traced: TracedRecipe,
    recipe: Recipe,
    numbers: Any,
    *,
    length: int,
    precision: Precision,
    launch: PlannedLaunch,
) -> ProcessMemory:
    """Returns what a process holds in a step of a recipe, of examples of up to `length` tokens.

    `numbers` is the model's transformers configuration.
    """
    with _without_collector():
        ledger = add_up(traced.step.log)
    engine = engine_memory(
        traced.parameters,
        launch,
        precision,
        recipe.optimizer,
        width=getattr(numbers.get_text_config(), "hidden_size", 0),
    )
    peaks = {
        phase: _with_engine(phase, peak, launch, engine) for phase, peak in ledger.peaks.items()
    }
    peaks |= between_steps(
        peaks["optimizer"],
        numbers,
        traced.parameters,
        launch,
        precision,
        prompt=length,
        generated=traced.generated_tokens,
    )
    highest = max(peak.allocated for peak in ledger.peaks.values())
    reserved = ledger.reserved
    if launch.engine != "none":  # the engine's part is not replayed: the same share on top
        most = max(peak.allocated for peak in peaks.values())
        reserved = most * ledger.reserved // highest
    return ProcessMemory(
        peaks=peaks,
        reserved=reserved,
        engine=engine,
        parameters=traced.parameters,
        flops=traced.step.flops,
        kernels=traced.step.kernels,
        equal_layers=traced.equal_layers,
    )


@contextmanager
def _without_collector() -> Generator[None]:
    """Context manager: Python does not look for cycles of objects. Collection would free
    them at times that depend on all else that the process does, and is slow with the many events of
    a log."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@contextmanager
def _without_torch_log() -> Generator[None]:
    """Context manager: torch does not print the traceback of an error that is raised, too."""
    log = logging.getLogger("torch._subclasses.fake_tensor")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def traced_recipe(
    recipe: Recipe,
    numbers: Any,
    shape: Shape,
    *,
    precision: Precision,
    launch: PlannedLaunch,
    on_gpu: bool,
    equal_layers: bool,
) -> TracedRecipe:
    """Returns the traced step of a recipe, of a model of few layers if they are equal.

    `numbers` is the model's transformers configuration; `equal_layers` says whether its layers are
    alike. Raises ConfigError if the recipe cannot be trained so, or if its step depends on contents
    of tensors, as that of a mixture of experts.
    """
    few = TRACED if equal_layers and num_layers(numbers) > TRACED else None
    for layers in (few, None):
        try:
            planned = planned_model(recipe, numbers, precision, on_gpu=on_gpu, layers=layers)
            step = _traced_step(planned, recipe, shape, precision, launch, on_gpu=on_gpu)
        except UnequalLayersError:
            continue
        except (TrainerError, MemoryError):
            raise
        except Exception as error:  # families ask their tensors for contents in many ways
            raise ConfigError(
                f"model: the step of models of the type {numbers.model_type} cannot be planned: "
                f"{reason_of(error)}",
                key="model",
                value=numbers.model_type,
                hint="measure it, by `trainer train RECIPE --dry-run`",
            ) from error
        return TracedRecipe(
            step=step,
            parameters=tuple(_all_parameters(planned)),
            generated_tokens=planned.task.generated_tokens,
            equal_layers=layers is not None,
        )
    raise AssertionError("a model of all layers has nothing to repeat")


def _traced_step(
    planned: PlannedModel,
    recipe: Recipe,
    shape: Shape,
    precision: Precision,
    launch: PlannedLaunch,
    *,
    on_gpu: bool,
) -> TracedStep:
    # ZeRO computes in the type to which it casts the weights; the others under autocast.
    computed = "fp32" if launch.engine in ZERO else precision
    if launch.engine in SHARDED:
        for parameter in planned.model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.to(COMPUTE_DTYPES[precision])
    with _without_collector(), _without_torch_log():
        return trace_step(planned, shape, recipe.optimizer, computed, on_gpu=on_gpu)


def _with_engine(phase: str, peak: Peak, launch: PlannedLaunch, engine: EngineMemory) -> Peak:
    """Returns a peak with the states and buffers of the engine."""
    held, rank = Counter(peak.held), engine.rank
    if launch.engine in SHARDED:
        for kind in (GRADIENTS, MOMENTS):
            held.pop(kind, None)
        held[WEIGHTS] = rank.weights
        if phase != "loading":
            held[GRADIENTS] = rank.gradients
            held[MOMENTS] = rank.masters + rank.moments
    if phase != "loading":
        held[BUFFERS] = rank.update if phase == "optimizer" else rank.buckets
    parts = Counter({kind: size for kind, size in held.items() if size})
    return Peak(parts.total(), parts, peak.section, peak.module)


def _all_parameters(planned: PlannedModel) -> list[PlannedParameter]:
    """Returns the parameters of all layers, also of those that a traced one stands for."""
    objective = Objective(planned.model, planned.task)
    described = planned_parameters(objective)
    if planned.repeats is None:
        return described
    own = {id(parameter) for parameter in planned.layers[REPEATED].parameters()}
    repeated = [
        each
        for parameter, each in zip(objective.parameters(), described, strict=True)
        if id(parameter) in own
    ]
    return described + [
        PlannedParameter(
            shape=each.shape,
            dtype=each.dtype,
            trainable=each.trainable,
            layer=None if each.layer is None else -copy,
        )
        for copy in range(1, num_copies(planned.repeats))
        for each in repeated
    ]
