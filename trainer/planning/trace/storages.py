"""Logs the memory of all tensors of a computation, with or without contents."""

import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ACTIVATIONS = "activations"
FREED, RENAMED, BEGINS, ENTERS = 0, -1, -2, -3
"""Sizes of events that allocate nothing."""


class Section(NamedTuple):
    """What is done to one layer: `loading`, `forward`, `backward` or `optimizer`."""

    phase: str
    layer: int


class Event(NamedTuple):
    """A storage that is allocated, or by its `size` another event.

    FREED: the storage is freed. RENAMED: it holds something else from now on. BEGINS: the phase
    `kind` of a step begins. ENTERS: the module `kind` is computed.
    """

    storage: int
    size: int
    kind: str
    """What the storage holds."""
    section: Section | None
    """The layer in whose computation this happens, if any."""


class Storages(TorchDispatchMode):
    """A mode that logs when the storages of tensors made inside are allocated and freed.

    Each storage counts once, whatever views it has. What kernels allocate and free by themselves
    is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Event] = []
        self.kind = ACTIVATIONS
        self.section: Section | None = None
        self._seen: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and to say so at every operation takes time

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._count(result.untyped_storage())
            return result
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return result

    def rename(self, tensor: Tensor, kind: str) -> None:
        """Says that the storage of `tensor` holds `kind` from now on."""
        storage = tensor.untyped_storage()
        self._count(storage)
        self.log.append(Event(self._seen[storage], RENAMED, kind, self.section))

    def keep(self, kind: str, size: int) -> None:
        """Logs memory that no tensor here has, and that is never freed."""
        self.log.append(Event(len(self.log), size, kind, self.section))

    def begin(self, phase: str) -> None:
        """Logs that a phase of a step begins."""
        self.section = None
        self.log.append(Event(-1, BEGINS, phase, None))

    @contextmanager
    def making(self, kind: str) -> Generator[None]:
        """Context manager: new storages hold `kind`."""
        before, self.kind = self.kind, kind
        try:
            yield
        finally:
            self.kind = before

    @contextmanager
    def within(self, section: Section | None) -> Generator[None]:
        """Context manager: what happens inside belongs to `section`."""
        before, self.section = self.section, section
        try:
            yield
        finally:
            self.section = before

    @contextmanager
    def watching(self, model: nn.Module, layers: Sequence[nn.Module]) -> Generator[None]:
        """Context manager: logs which module is computed, and which of the `layers`, forward and
        backward."""
        handles: list[Any] = []
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(self._entering(name)))
        for index, layer in enumerate(layers):
            handles += self._follow(layer, index, is_last=index == len(layers) - 1)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _entering(self, name: str) -> Any:
        def enter(*_: Any) -> None:
            self.log.append(Event(-1, ENTERS, name, self.section))

        return enter

    def _follow(self, layer: nn.Module, index: int, *, is_last: bool) -> list[Any]:
        """Registers hooks that set the section: a layer's forward lasts from its call to that of
        the next layer, and its backward from the gradient of its result to that of its input."""

        def in_backward() -> bool:  # where checkpointed layers are computed again
            return self.section is not None and self.section.phase == "backward"

        def started(*_: Any) -> None:
            if not in_backward():
                self.section = Section("forward", index)

        def finished(_module: Any, inputs: Any, kwargs: dict[str, Any], output: Any) -> None:
            if in_backward():
                return
            if is_last:
                self.section = None
            result = output if isinstance(output, Tensor) else output[0]
            state = inputs[0] if inputs else kwargs["hidden_states"]
            if result.requires_grad:
                result.register_hook(partial(self._enter, Section("backward", index)))
            if state.requires_grad and index == 0:
                state.register_hook(partial(self._enter, None))

        return [
            layer.register_forward_pre_hook(started),
            layer.register_forward_hook(finished, with_kwargs=True),
        ]

    def _enter(self, section: Section | None, _: Tensor) -> None:
        self.section = section

    def _count(self, storage: Any) -> None:
        if storage in self._seen:
            return
        number = self._seen[storage] = len(self.log)
        self.log.append(Event(number, max(1, storage.nbytes()), self.kind, self.section))
        weakref.finalize(storage, self._free, number).atexit = False

    def _free(self, number: int) -> None:
        self.log.append(Event(number, FREED, "", self.section))
