"""Counts the floating-point operations of a step, and knows how many places a mask selects."""

from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

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

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is INDEX and args[1][0] is not None and args[1][0].dtype == torch.bool:
            values, (mask,) = args
            return values.new_empty((self.num_selected, *values.shape[mask.ndim :]))
        brief = brief_tensor(func, args) if self.on_gpu else None
        result = func(*args, **kwargs)
        del brief
        self.kernels[self.storages.section] += launches(func)
        packet = func._overloadpacket
        if packet in flop_registry:
            self.flops[self.storages.section] += flop_registry[packet](
                *args, **kwargs, out_val=result
            )
        elif func.name() == "bitsandbytes::gemm_4bit":
            self.flops[self.storages.section] += 2 * args[0].numel() * args[2][0]
        elif func.name() in ("bitsandbytes::int8_scaled_mm", "bitsandbytes::int8_linear_matmul"):
            self.flops[self.storages.section] += 2 * args[0].numel() * args[1].shape[0]
        return result


def launches(func: Any) -> bool:
    """Returns whether an operation launches a kernel on a GPU."""
    of_torch = func.namespace in ("prim", "profiler")
    return not (of_torch or func.is_view or func.name().startswith(LAUNCH_NOTHING))
