"""An outline of a model: its modules with their parameters, repeated layers folded into one."""

from dataclasses import dataclass
from itertools import groupby

from torch import nn

from trainer.engines.fsdp2_state import is_fsdp2
from trainer.models.parameters import num_weights, weight_shape


@dataclass(frozen=True)
class Weight:
    name: str
    shape: tuple[int, ...]
    size: int
    """Number of weights; 0 for a weight that is tied to an earlier one."""
    trainable: bool


@dataclass(frozen=True)
class Module:
    """A module; two modules of the same structure are equal, whatever their names."""

    kind: str
    weights: tuple[Weight, ...]
    """The weights of the module itself, without those of its children."""
    children: tuple[tuple[str, "Module"], ...]
    """Children with weights, by name."""

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
    """A line of the outline: a module, or consecutive modules of the same structure."""

    name: str
    """Path of the module; 0-15 stands for sixteen modules."""
    module: Module
    depth: int
    repeats: int


def outline(model: nn.Module, *, full: bool = False) -> list[Row]:
    """Returns the modules that have weights, each followed by its children.

    Consecutive layers of the same structure are one row unless `full`. A tied weight counts in the
    first module that has it.
    """
    return _rows("", _read(model, set()), 0, full)


def _read(module: nn.Module, seen: set[int]) -> Module:
    weights: list[Weight] = []
    for name, parameter in module.named_parameters(recurse=False):
        size = 0 if id(parameter) in seen else num_weights(parameter)
        seen.add(id(parameter))
        weights.append(Weight(name, weight_shape(parameter), size, parameter.requires_grad))
    children = [(name, _read(child, seen)) for name, child in module.named_children()]
    with_weights = tuple(
        (name, child) for name, child in children if child.weights or child.children
    )
    kind = type(module).__name__
    if is_fsdp2(module):
        kind = kind.removeprefix("FSDP")  # of the class that FSDP2 derives
    return Module(kind, tuple(weights), with_weights)


def _rows(prefix: str, module: Module, depth: int, full: bool) -> list[Row]:
    rows: list[Row] = []

    def structure(child: tuple[str, Module]) -> object:
        name, inside = child
        return name if full or not name.isdigit() else inside

    for _, group in groupby(module.children, key=structure):
        (first, child), *repeats = group
        name = prefix + (f"{first}-{repeats[-1][0]}" if repeats else first)
        rows.append(Row(name, child, depth, 1 + len(repeats)))
        rows += _rows(f"{name}.", child, depth + 1, full)
    return rows
