"""A model's modules with their parameters, repeated layers folded into one."""

from dataclasses import dataclass
from itertools import groupby

from torch import nn


@dataclass(frozen=True)
class Weight:
    name: str
    shape: tuple[int, ...]
    size: int
    """Number of weights; 0 where it is tied to one above."""
    trainable: bool


@dataclass(frozen=True)
class Module:
    """A module; two of the same structure are equal, whatever their names."""

    kind: str
    weights: tuple[Weight, ...]
    """Its own."""
    children: tuple[tuple[str, "Module"], ...]
    """Those with weights, by name."""

    @property
    def parameters(self) -> int:
        inside = sum(child.parameters for _, child in self.children)
        return inside + sum(weight.size for weight in self.weights)

    @property
    def trainable(self) -> int:
        own = sum(weight.size for weight in self.weights if weight.trainable)
        return own + sum(child.trainable for _, child in self.children)


@dataclass(frozen=True)
class Row:
    """A line of the outline: a module, or several of the same structure in a row."""

    name: str
    """Its path; 0-15 stands for sixteen."""
    module: Module
    depth: int
    repeats: int


def outline(model: nn.Module, *, full: bool = False) -> list[Row]:
    """Returns the modules that have weights, each followed by those inside it.

    Layers in a row that have the same structure are one row, unless `full`. A tied weight counts
    where it stands first.
    """
    return _rows("", _read(model, set()), 0, full)


def _read(module: nn.Module, seen: set[int]) -> Module:
    weights: list[Weight] = []
    for name, parameter in module.named_parameters(recurse=False):
        size = 0 if id(parameter) in seen else parameter.numel()
        seen.add(id(parameter))
        weights.append(Weight(name, tuple(parameter.shape), size, parameter.requires_grad))
    children = [(name, _read(child, seen)) for name, child in module.named_children()]
    with_weights = tuple(one for one in children if one[1].weights or one[1].children)
    return Module(type(module).__name__, tuple(weights), with_weights)


def _rows(prefix: str, module: Module, depth: int, full: bool) -> list[Row]:
    found: list[Row] = []

    def alike(child: tuple[str, Module]) -> object:
        name, one = child
        return name if full or not name.isdigit() else one

    for _, group in groupby(module.children, key=alike):
        (first, one), *others = group
        name = prefix + (f"{first}-{others[-1][0]}" if others else first)
        found.append(Row(name, one, depth, 1 + len(others)))
        found += _rows(f"{name}.", one, depth + 1, full)
    return found
