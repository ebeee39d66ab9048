"""Saved tensors: read by name, and compared with those of a model and its optimizer."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from trainer.engines.portable_state import Parameters
from trainer.engines.sharding import whole_weight
from trainer.errors import CheckpointError
from trainer.optim import OPTIMIZERS
from trainer.recipe.training import Optimizer

Kind = tuple[tuple[int, ...], str]
"""Shape and type of a tensor; the type has safetensors' name, such as F32."""
TYPES = {
    torch.float32: "F32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.float64: "F64",
    torch.uint8: "U8",
}


class SavedTensors(Mapping[str, Tensor]):
    """The tensors of several safetensors files by name, each read on access.

    Reading raises OSError or SafetensorError, the latter also for a tensor with NaN values.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        """Raises OSError or SafetensorError for a file that cannot be read."""
        self._places: dict[str, Path] = {}
        for path in files:
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    if name in self._places:
                        raise SafetensorError(f"{name} is in {self._places[name].name}, too")
                    self._places[name] = path
        self._path: Path | None = None
        self._file: Any = None

    def __getitem__(self, name: str) -> Tensor:
        path = self._places[name]
        if path != self._path:  # an open file keeps everything read from it in memory
            self._path, self._file = path, safe_open(path, framework="pt")
        # A copy: without it the tensor would be a view into the file.
        tensor = self._file.get_tensor(name).clone()
        if tensor.is_floating_point() and tensor.isnan().any():
            raise SafetensorError(f"{name} in {path.name} holds values that are not numbers")
        return tensor

    def kinds(self) -> dict[str, Kind]:
        """Returns the shape and type of each tensor without reading its values."""
        kinds: dict[str, Kind] = {}
        for path in dict.fromkeys(self._places.values()):
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    part = file.get_slice(name)
                    kinds[name] = tuple(part.get_shape()), part.get_dtype()
        return kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


def check_weights(checkpoint: Path, saved: SavedTensors, parameters: Parameters) -> None:
    """Raises CheckpointError unless names, shapes and types are those of the parameters."""
    kinds = saved.kinds()
    if different := sorted(kinds.keys() ^ parameters.keys()):
        raise CheckpointError(
            f"{checkpoint} is of another model, or of an earlier version that trained other parts "
            f"of the model: {different[0]} is in only one of them",
            key=str(checkpoint),
            value=different[0],
            hint="start again in another --run-dir",
        )
    for name, parameter in parameters.items():
        shape, kind = kinds[name]
        needed = _shape(parameter)
        if shape != needed:
            raise _misfit(checkpoint, name, f"shape {list(shape)}", f"{list(needed)}")
        if kind not in ("F32", TYPES.get(parameter.dtype)):
            raise _misfit(checkpoint, name, f"type {kind}", "F32")


def check_moments(
    checkpoint: Path,
    saved: SavedTensors,
    weights: SavedTensors,
    objective: nn.Module,
    settings: Optimizer,
    parameters: Parameters,
    *,
    step: int,
) -> None:
    """Raises CheckpointError unless names, shapes and types are those that the optimizer keeps.

    Only a parameter that has never learned may lack moments: its saved weight must equal the
    model's. So call this before loading the weights.
    """
    by_parameter: dict[str, dict[str, Kind]] = {name: {} for name in parameters}
    for key, kind in saved.kinds().items():
        name, _, entry = key.rpartition("|")
        if name not in by_parameter:
            raise _other(checkpoint, f"has moments of {name}, which the model does not have", name)
        by_parameter[name][entry] = kind
    keeps = OPTIMIZERS[settings.name].state
    for name, parameter in parameters.items():
        kinds = by_parameter[name]
        entries = keeps(_shape(parameter), settings)
        expected = {entry: (shape, TYPES[dtype]) for entry, (shape, dtype) in entries.items()}
        if not kinds:
            if expected and not _is_untouched(objective, parameter, weights[name]):
                raise _other(checkpoint, f"has no moments of {name}, which has learned", name)
            continue
        if different := sorted(kinds.keys() ^ expected.keys()):
            entry = f"{name}|{different[0]}"
            raise _other(checkpoint, f"is of another optimizer: {entry} is in only one", entry)
        for entry, (shape, kind) in kinds.items():
            if (shape, kind) != expected[entry]:
                needed = f"{list(expected[entry][0])} of {expected[entry][1]}"
                raise _misfit(checkpoint, f"{name}|{entry}", f"{list(shape)} of {kind}", needed)
        if "step" in expected and not 0 < float(saved[f"{name}|step"]) <= step:
            count = f"{name}|step"
            raise _other(checkpoint, f"holds a {count} that is not from 1 to {step}", count)


def _is_untouched(objective: nn.Module, parameter: Any, saved: Tensor) -> bool:
    with whole_weight(objective, parameter):
        held = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
        return torch.equal(held.detach().cpu(), saved.to(held.dtype))


def _shape(parameter: Any) -> tuple[int, ...]:
    return tuple(getattr(parameter, "ds_shape", parameter.shape))


def _misfit(checkpoint: Path, name: str, saved: str, needed: str) -> CheckpointError:
    return _other(checkpoint, f"does not fit: {name} has {saved} and needs {needed}", name)


def _other(checkpoint: Path, what: str, name: str) -> CheckpointError:
    return CheckpointError(
        f"{checkpoint} {what}",
        key=str(checkpoint),
        value=name,
        hint="resume from another checkpoint, or choose another --run-dir",
    )
