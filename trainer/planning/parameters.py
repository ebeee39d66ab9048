"""The parameters of a recipe's model, in total and trainable, counted without reading weights."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from trainer.engines.precision import COMPUTE_DTYPES, resolve_precision
from trainer.models.architecture import shape_config
from trainer.models.load import QUANTISED, LoadedModel, from_numbers, unquantised_modules
from trainer.models.structure import head_modules, plain_model
from trainer.models.tuning import apply_tuning
from trainer.planning.breakdown import module_rows, notes_on_counts
from trainer.planning.outline import outline
from trainer.recipe.schema import Recipe
from trainer.tasks import task_of


@dataclass(frozen=True, kw_only=True)
class Counts:
    total: int
    """Number of weights, regardless of how they are stored; a tied weight counts once."""
    trainable: int
    stored: int
    """Number of stored elements: two 4-bit weights are one element."""
    bytes: dict[str, int]
    """Bytes of the stored elements by type."""

    def as_dict(self) -> dict[str, Any]:
        return {**vars(self), "frozen": self.total - self.trainable}


@dataclass(frozen=True, kw_only=True)
class Change:
    """Parameters of the same shape that head or adapters add to the backbone, or that they lack."""

    name: str
    """Name, with * in place of layer numbers."""
    shape: tuple[int, ...]
    repeats: int
    trainable: bool


@dataclass(frozen=True, kw_only=True)
class Parameters:
    kind: str
    """Name of the model's class."""
    before: Counts
    """Counts of the backbone by itself."""
    after: Counts
    """Counts of the model as it is trained."""
    added: list[Change]
    absent: list[Change]
    model: nn.Module
    """The model as it is trained, on the meta device."""
    notes: list[str]


def count(recipe: Recipe) -> Parameters:
    """Returns the parameters of a recipe's model, computed from its architecture.

    Frozen weights count in the type in which this machine computes. Raises ConfigError if the shape
    of the head depends on the data, or if the architecture is not shipped and cannot be loaded.
    """
    import transformers

    task = task_of(recipe)
    numbers = shape_config(recipe.model)
    auto = getattr(transformers, task.model_class(recipe, numbers))
    for name, value in task.head_config_values(recipe).items():
        setattr(numbers, name, value)
    mode = recipe.tuning.mode
    precision = recipe.precision
    if precision == "auto":
        precision = resolve_precision("auto")
    frozen_dtype = COMPUTE_DTYPES[precision]
    with torch.device("meta"):
        backbone = from_numbers(transformers.AutoModel, recipe.model, numbers)
        model = from_numbers(auto, recipe.model, numbers)
        model.to(torch.float32 if mode == "full" else frozen_dtype)
        backbone.to(model.dtype)
        storage = _packed(model, mode)
        loaded = LoadedModel(model, head_modules(model), ("*",))
        tuned: Any = apply_tuning(
            loaded, recipe.tuning, trains_head=task.trains_head, gradient_checkpointing=False
        )
    trained = plain_model(tuned)
    prefix = f"{model.base_model_prefix}." if model is not model.base_model else ""
    old = {f"{prefix}{name}": weight for name, weight in backbone.named_parameters()}
    packed = {id(weight): storage[name] for name, weight in old.items() if name in storage}
    new = {name.replace(".base_layer.", "."): weight for name, weight in trained.named_parameters()}
    packed |= {id(weight): storage[name] for name, weight in new.items() if name in storage}
    added = {name: weight for name, weight in new.items() if name not in old}
    absent = {name: weight for name, weight in old.items() if name not in new}
    return Parameters(
        kind=type(model).__name__,
        before=_counts(backbone.parameters(), packed),
        after=_counts(trained.parameters(), packed),
        added=_folded(added),
        absent=_folded(absent),
        model=trained,
        notes=notes_on_counts(mode, added, absent),
    )


def as_json(parameters: Parameters, *, full: bool) -> dict[str, Any]:
    """Returns all counts as plain JSON values; a repeated module has the counts of one repeat."""
    return {
        "model": parameters.kind,
        **parameters.after.as_dict(),
        "before": parameters.before.as_dict(),
        "added": [vars(change) for change in parameters.added],
        "absent": [vars(change) for change in parameters.absent],
        "modules": module_rows(parameters.model, full=full),
        "notes": parameters.notes,
    }


def as_text(parameters: Parameters, *, full: bool) -> str:
    """Returns a table by module, totals of backbone and trained model, and their difference."""
    rows = [["module", "type", "shapes", "parameters", "trainable"]]
    for row in outline(parameters.model, full=full):
        leaf = row.name.rpartition(".")[2]
        times = f" ({row.repeats} of them, each:)" if row.repeats > 1 else ""
        shapes = ", ".join(f"{weight.name} {_shape(weight.shape)}" for weight in row.module.weights)
        counts = [f"{row.module.parameters:,}", f"{row.module.trainable:,}"]
        rows.append(["  " * row.depth + leaf + times, row.module.kind, shapes, *counts])
    table = _aligned(rows, right=2)
    before, after = parameters.before.as_dict(), parameters.after.as_dict()
    totals = [["", "backbone", "as trained"]]
    for key in ("total", "trainable", "frozen", "stored"):
        totals.append([key, f"{before[key]:,}", f"{after[key]:,}"])
    for dtype in dict.fromkeys([*parameters.before.bytes, *parameters.after.bytes]):
        sizes = (counts.bytes.get(dtype, 0) for counts in (parameters.before, parameters.after))
        totals.append([f"bytes {dtype}", *(f"{size:,}" for size in sizes)])
    lines = [parameters.kind, "", *table, "", *_aligned(totals, right=2)]
    for title, changes in (("added", parameters.added), ("absent", parameters.absent)):
        if changes:
            lines += ["", f"{title}:", *(f"  {_change(change)}" for change in changes)]
    if parameters.notes:
        lines += ["", *(f"note: {note}" for note in parameters.notes)]
    return "\n".join(lines)


def _packed(model: Any, mode: str) -> dict[str, torch.dtype]:
    """Returns the storage type of the weights that bitsandbytes packs, by name."""
    if mode not in QUANTISED:
        return {}
    from transformers.pytorch_utils import Conv1D

    storage = torch.uint8 if mode == "qlora" else torch.int8
    kept = unquantised_modules(model)
    return {
        f"{name}.weight": storage
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D)
        and not any(
            name == module_name or name.startswith(f"{module_name}.") for module_name in kept
        )
    }


def _counts(parameters: Iterable[nn.Parameter], packed: dict[int, torch.dtype]) -> Counts:
    total = trainable = stored = 0
    sizes: Counter[str] = Counter()
    for parameter in parameters:
        dtype = packed.get(id(parameter), parameter.dtype)
        elements = (parameter.numel() + 1) // 2 if dtype == torch.uint8 else parameter.numel()
        total += parameter.numel()
        trainable += parameter.numel() * parameter.requires_grad
        stored += elements
        sizes[str(dtype).removeprefix("torch.")] += elements * dtype.itemsize
    return Counts(total=total, trainable=trainable, stored=stored, bytes=dict(sizes))


def _folded(parameters: dict[str, nn.Parameter]) -> list[Change]:
    """Returns the parameters with those of repeated layers folded into one entry."""
    alike = Counter(
        (re.sub(r"(?<=\.)\d+(?=\.)", "*", name), tuple(weight.shape), weight.requires_grad)
        for name, weight in parameters.items()
    )
    return [
        Change(name=name, shape=shape, repeats=repeats, trainable=trainable)
        for (name, shape, trainable), repeats in alike.items()
    ]


def _change(change: Change) -> str:
    size = torch.Size(change.shape).numel() * change.repeats
    times = f"{change.repeats} x " if change.repeats > 1 else ""
    learns = ", trained" if change.trainable else ", frozen"
    return f"{change.name} {times}{_shape(change.shape)} = {size:,}{learns}"


def _shape(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _aligned(rows: list[list[str]], *, right: int) -> list[str]:
    """Returns rows as lines; the last `right` columns are aligned to the right."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    first = len(widths) - right
    return [
        "  ".join(
            cell.rjust(width) if index >= first else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
