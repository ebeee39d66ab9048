"""Counts the floating-point operations of a step, and knows how many places a mask selects."""

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from trainer.models import linear_cross_entropy
from trainer.planning.trace.cuda import brief_tensor
from trainer.planning.trace.storages import Section, Storages

INDEX = torch.ops.aten.index.Tensor
LAUNCH_NOTHING = ("aten::empty", "aten::new_empty", "aten::_unsafe_view", "aten::detach")
"""How the names of operations begin that launch no kernel, besides views."""


class Operations(TorchDispatchMode):
    """A mode that adds up the operations of matrix products and attention in `flops`, and counts
    `kernels`, by the layer that the log of storages says is computed.

    A boolean index, whose contents nobody knows, selects `num_selected` places. With `on_gpu`,
    kernels make the tensors that those of CUDA make.
    """

    def __init__(self, storages: Storages, *, on_gpu: bool) -> None:
        super().__init__()
        self.on_gpu = on_gpu
        self.storages = storages
        self.flops: Counter[Section | None] = Counter()
        self.kernels: Counter[Section | None] = Counter()
        self.num_selected = 0
        self._times = 1
        """How often what is computed now is counted."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing here is compiled, and to say so at every operation takes time

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func.namespace == "prim":  # a question, such as on which device a tensor is
            return func(*args, **kwargs)
        if func is INDEX and args[1][0] is not None and args[1][0].dtype == torch.bool:
            values, (mask,) = args
            return values.new_empty((self.num_selected, *values.shape[mask.ndim :]))
        brief = brief_tensor(func, args) if self.on_gpu else None
        result = func(*args, **kwargs)
        del brief
        self.kernels[self.storages.section] += self._times * launches(func)
        flops = _flops(func, args, kwargs, result)
        if flops:
            self.flops[self.storages.section] += self._times * flops
        return result

    @contextmanager
    def few_chunks(self) -> Generator[None]:
        """Context manager: of the equal chunks of a loss over a vocabulary, the second is computed
        for all between the first and the last one, and counted as often."""
        before = linear_cross_entropy.chunk_starts

        def few(number: int) -> Iterator[int]:
            starts = list(before(number))
            between = starts[1:-1]
            yield from starts[:1]
            if between:
                self._times = len(between)
                yield between[0]
                self._times = 1
            yield from starts[1:][-1:]

        linear_cross_entropy.chunk_starts = few
        try:
            yield
        finally:
            linear_cross_entropy.chunk_starts = before


def _flops(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> int:
    packet = func._overloadpacket
    if packet in flop_registry:
        return flop_registry[packet](*args, **kwargs, out_val=result)
    if func.name() == "bitsandbytes::gemm_4bit":
        return 2 * args[0].numel() * args[2][0]
    if func.name() in ("bitsandbytes::int8_scaled_mm", "bitsandbytes::int8_linear_matmul"):
        return 2 * args[0].numel() * args[1].shape[0]
    return 0


def launches(func: Any) -> bool:
    """Returns whether an operation launches a kernel on a GPU."""
    marks = func.namespace == "profiler"
    return not (marks or func.is_view or func.name().startswith(LAUNCH_NOTHING))
