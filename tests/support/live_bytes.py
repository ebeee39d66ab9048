"""Bytes of real tensors, and the most that lived at once."""

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def stored_bytes(found: Iterable[Any]) -> int:
    """Returns the bytes of the storages of tensors, each once; those on the meta device have
    none."""
    storages = [one.untyped_storage() for one in _tensors(list(found))]
    return sum({one.data_ptr(): one.nbytes() for one in storages if one.nbytes()}.values())


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        if not value.is_meta:  # DeepSpeed remembers shapes as such
            yield value.to_local() if isinstance(value, DTensor) else value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _tensors(part)
    elif isinstance(value, list | tuple | set):
        for part in value:
            yield from _tensors(part)


class Peak(TorchDispatchMode):
    """Keeps the most bytes that storages took at once, beginning with those of some tensors.

    A storage that is resized counts with the size that it has when the next operation ends.
    """

    def __init__(self, first: Iterable[Any]) -> None:
        super().__init__()
        self._live: dict[int, weakref.ref[Any]] = {}
        self.most = 0
        for one in _tensors(list(first)):
            self._keep(one)
        self._look()

    def _keep(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        self._live[key] = weakref.ref(storage)

    def _look(self) -> None:
        alive = {key: ref() for key, ref in self._live.items()}
        self._live = {key: self._live[key] for key, one in alive.items() if one is not None}
        now = sum(one.nbytes() for one in alive.values() if one is not None)
        self.most = max(self.most, now)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        result = function(*args, **(kwargs or {}))
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and not one.is_meta:
                self._keep(one)
        self._look()
        return result
