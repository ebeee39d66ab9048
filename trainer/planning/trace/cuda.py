"""Makes tensors on the CPU, without contents, compute as they would on an NVIDIA GPU.

Only what changes memory differs: which operations autocast computes in fp32, which kernel
of attention is chosen and what it keeps for backward, and what dropout keeps.
"""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

HALF = (torch.float16, torch.bfloat16)
IN_FP32 = frozenset(
    {
        *(functional.layer_norm, torch.layer_norm, functional.group_norm, torch.group_norm),
        *(functional.softmax, torch.softmax, Tensor.softmax, functional.log_softmax),
        *(torch.log_softmax, Tensor.log_softmax, functional.softplus, functional.rms_norm),
        *(functional.cross_entropy, functional.nll_loss, functional.mse_loss, functional.l1_loss),
        *(functional.smooth_l1_loss, functional.kl_div, functional.cosine_similarity),
        *(torch.pow, Tensor.pow, Tensor.__pow__, Tensor.__rpow__, torch.rsqrt, Tensor.rsqrt),
        *(torch.exp, Tensor.exp, torch.log, Tensor.log, torch.log1p, Tensor.log1p),
        *(torch.sum, Tensor.sum, torch.prod, Tensor.prod, torch.cumsum, Tensor.cumsum),
        *(torch.norm, Tensor.norm, torch.reciprocal, Tensor.reciprocal, torch.acos, torch.asin),
        *(torch.cosh, torch.sinh, torch.tan, torch.erfinv, torch.expm1, Tensor.expm1),
    }
)
"""Operations that torch.autocast("cuda") computes in fp32 and torch.autocast("cpu") does not
(torch's documentation of autocast, "CUDA Ops that can autocast to float32")."""
SOFTMAX = (functional.softmax, torch.softmax, Tensor.softmax)
SOFTMAX_BACKWARD = torch.ops.aten._softmax_backward_data.default


class ComputingLikeCuda(TorchFunctionMode):
    """A mode in which attention and dropout keep what the CUDA kernels keep, and autocast computes
    in fp32 what it computes in fp32 on CUDA."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is functional.scaled_dot_product_attention:
            return _attention(*args, **kwargs)
        if func in (functional.dropout, torch.dropout):
            kwargs.pop("inplace", None)
            return _dropout(*args, **kwargs)
        if func in SOFTMAX and _casts_half(args[0], kwargs.get("dtype")):
            dim = kwargs["dim"] if "dim" in kwargs else args[1]
            return torch.ops.aten._softmax(args[0], dim, True)  # by one kernel
        if func in IN_FP32 and torch.is_autocast_enabled("cpu"):
            args = [_in_fp32(value) for value in args]
            kwargs = {name: _in_fp32(value) for name, value in kwargs.items()}
        return func(*args, **kwargs)


def recompute_like_cuda(model: nn.Module) -> None:
    """Makes the layers of a model that are computed again in backward compute like CUDA then, too.

    Modes do not reach what runs inside a backward pass.
    """
    for module in model.modules():
        layer: Any = module
        compute: Any = getattr(module, "_gradient_checkpointing_func", None)
        if compute is not None:
            layer._gradient_checkpointing_func = partial(compute, context_fn=_contexts)


def _contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
    return nullcontext(), ComputingLikeCuda()


def brief_tensor(func: Any, args: Any) -> Tensor | None:
    """Returns the tensor that an operation's CUDA kernel makes and frees; None for most kernels.

    The backward of softmax multiplies gradient and result before it adds them up
    (aten/native/cuda/SoftMax.cu).
    """
    if func is not SOFTMAX_BACKWARD:
        return None
    gradient, result = args[:2]
    return torch.empty(gradient.shape, dtype=torch.promote_types(gradient.dtype, result.dtype))


def _casts_half(value: Tensor, dtype: torch.dtype | None) -> bool:
    return value.dtype == torch.float16 and dtype == torch.float32


def _in_fp32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.dtype in HALF else value


def _dropout(input: Tensor, p: float = 0.5, training: bool = True, *_: bool) -> Tensor:
    """Keeps a mask of one byte an element, where the CPU keeps one in the type of the input."""
    if not training or p == 0:
        return input
    return torch.native_dropout(input, p, True)[0]


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Computes attention by the memory-efficient kernel, which every GPU and every mask allow."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = (tensor.to(dtype) for tensor in (query, key, value))
    if enable_gqa:
        groups = query.shape[-3] // key.shape[-3]
        key, value = (tensor.repeat_interleave(groups, -3) for tensor in (key, value))
    bias = None
    if attn_mask is not None:
        bias = attn_mask
        if bias.dtype == torch.bool:  # becomes 0 and minus infinity
            bias = torch.zeros_like(bias, dtype=query.dtype).masked_fill_(~bias, -torch.inf)
        bias = bias.to(query.dtype)
        if bias.shape[-1] % 16:  # rows are aligned
            bias = functional.pad(bias, (0, 16 - bias.shape[-1] % 16))[..., : key.shape[-2]]
        bias = bias.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    keeps = query.requires_grad or key.requires_grad or value.requires_grad
    result = torch.ops.aten._scaled_dot_product_efficient_attention(
        query,
        key,
        value,
        bias,
        keeps and torch.is_grad_enabled(),
        dropout_p,
        is_causal,
        scale=scale,
    )
    return result[0]


@contextmanager
def whole_sequences() -> Generator[None]:
    """Context manager: transformers takes every sequence for one example, which it cannot read
    from positions without contents, and makes no mask that keeps examples apart."""
    from transformers import masking_utils

    module: Any = masking_utils
    before = module.find_packed_sequence_indices
    module.find_packed_sequence_indices = _no_packed_sequences
    try:
        yield
    finally:
        module.find_packed_sequence_indices = before


def _no_packed_sequences(_: Tensor) -> None:
    """Stands for transformers' `find_packed_sequence_indices`."""
