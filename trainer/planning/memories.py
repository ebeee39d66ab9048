"""The memory of a process by micro-batch and length, traced once or made from other lengths."""

from dataclasses import replace
from typing import Any

from trainer.engines.precision import Precision
from trainer.planning.gpus import Gpu
from trainer.planning.launches import SHARDED, PlannedLaunch
from trainer.planning.lengths import Lengths
from trainer.planning.process_memory import (
    ProcessMemory,
    TracedRecipe,
    process_memory,
    traced_recipe,
)
from trainer.planning.trace.interpolated import Interpolation
from trainer.planning.trace.model import has_equal_layers, tunes_layers_alike
from trainer.planning.trace.step import WORKSPACE, Shape
from trainer.recipe.schema import Recipe

BAND, SHARDED_BAND = (0.95, 1.05), (0.9, 1.15)
"""What a process shows, relative to the plan. Without sharding, 63 of 67 steps measured on a T4 are
within it, and the others computed attention eagerly; of sharding engines the allocator's share is
not replayed, but taken from one GPU."""
WORKSPACE_HOPPER = 32 * 2**20
"""Bytes of WORKSPACE from compute capability 9.0 on."""


class Memories:
    """The memory of a recipe under a launch.

    A greater length needs no less, nor does a larger micro-batch, except for the whole share of a
    step: it accumulates no gradients, so it may need less than a part.
    """

    def __init__(
        self,
        recipe: Recipe,
        numbers: Any,
        launch: PlannedLaunch,
        precision: Precision,
        lengths: Lengths,
        *,
        equal_layers: bool | None = None,
    ) -> None:
        """`equal_layers` says whether all layers of the model are alike; by default, they are
        compared."""
        self.recipe, self.numbers, self.launch = recipe, numbers, launch
        self.precision: Precision = precision
        self.lengths = lengths
        if equal_layers is None:
            equal_layers = has_equal_layers(recipe, numbers)
        self.equal_layers = equal_layers
        self._known: dict[tuple[int, int], ProcessMemory] = {}
        self._traced: dict[tuple[int, int], TracedRecipe] = {}
        self._interpolations: dict[tuple[int, bool], Interpolation | None] = {}

    def changed(self, recipe: Recipe, launch: PlannedLaunch) -> "Memories":
        """Returns the memory of another recipe for the same model, under another launch."""
        return Memories(
            recipe,
            self.numbers,
            launch,
            self.precision,
            self.lengths,
            equal_layers=self.equal_layers and tunes_layers_alike(recipe),
        )

    def of(self, micro_batch_size: int, length: int) -> ProcessMemory:
        """Returns the memory of a process with micro-batches of examples of `length` tokens."""
        key = micro_batch_size, length
        if key not in self._known:
            self._known[key] = process_memory(
                self._interpolated(*key) or self._trace(*key),
                self.recipe,
                self.numbers,
                length=length,
                precision=self.precision,
                launch=self.launch,
            )
        return self._known[key]

    def _trace(self, micro_batch_size: int, length: int) -> TracedRecipe:
        share = self.recipe.batch.global_batch_size // self.launch.processes
        evaluated = min(length, self.lengths.longest_evaluated)
        traced = self._traced[micro_batch_size, length] = traced_recipe(
            self.recipe,
            self.numbers,
            Shape(
                micro_batch_size=micro_batch_size,
                length=length,
                num_micro_batches=share // micro_batch_size,
                evaluation_length=evaluated or None,
            ),
            precision=self.precision,
            launch=self.launch,
            on_gpu=True,
            equal_layers=self.equal_layers,
        )
        return traced

    def _interpolated(self, micro_batch_size: int, length: int) -> TracedRecipe | None:
        """Returns the step of a length from those of other lengths in which the same examples are
        evaluated, and which all exceed the window of attention or do not; None if too few are
        traced."""
        exceeds = self._exceeds_window(length)
        known = {
            tokens: traced
            for (size, tokens), traced in self._traced.items()
            if size == micro_batch_size
            and tokens >= self.lengths.longest_evaluated
            and self._exceeds_window(tokens) == exceeds
        }
        if length < self.lengths.longest_evaluated or len(known) < 3:
            return None
        key = micro_batch_size, exceeds
        if key not in self._interpolations:
            steps = {tokens: traced.step for tokens, traced in known.items()}
            self._interpolations[key] = Interpolation.of(steps)
        interpolation = self._interpolations[key]
        step = None if interpolation is None else interpolation.at(length)
        return None if step is None else replace(next(iter(known.values())), step=step)

    def _exceeds_window(self, length: int) -> bool:
        """Returns whether attention needs a mask that keeps distant tokens apart."""
        window = getattr(self.numbers.get_text_config(), "sliding_window", None)
        return window is not None and length >= window

    def micro_batches(self, length: int) -> set[int]:
        """Returns the micro-batches of a length that are known."""
        return {size for size, tokens in self._known if tokens == length}

    def lengths_of(self, micro_batch_size: int) -> set[int]:
        """Returns the lengths that are known with a micro-batch."""
        return {tokens for size, tokens in self._known if size == micro_batch_size}

    def process(self, micro_batch_size: int, length: int, gpu: Gpu) -> tuple[int, int]:
        """Returns the least and the most bytes that the process will show on a GPU."""
        expected = self.of(micro_batch_size, length).reserved + gpu.context + more_workspace(gpu)
        low, high = SHARDED_BAND if self.launch.engine in SHARDED else BAND
        return round(low * expected), round(high * expected)


def more_workspace(gpu: Gpu) -> int:
    """Returns how much more cuBLAS keeps on a GPU for its two threads than on older ones."""
    return 2 * (WORKSPACE_HOPPER - WORKSPACE) if gpu.capability >= (9, 0) else 0
