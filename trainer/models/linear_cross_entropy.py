"""Cross-entropy over a large vocabulary in chunks: all logits would be a step's largest tensor."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

CHUNK_SIZE = 512
"""Number of positions whose logits are in memory at once."""
WORD_BLOCK = 16_384
"""Rows of the weight's gradient that are computed at once in bf16 and fp16, in a scratch tensor."""
HALF_SCALE = 2.0**15
"""Factor of fp16 probabilities, without which those under 6e-8 would become 0."""


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """Returns the sum over positions of -log softmax(hidden @ weight.T + bias)[target], fp32 [].

    Shapes: `hidden` [n, d], `weight` [v, d], `bias` [v], `targets` int64 [n] within 0 .. v - 1.
    The logits of `CHUNK_SIZE` positions are in memory at a time. Products are computed in the type
    of autocast, or without it in the common type of `hidden` and `weight`; softmax and sums in
    fp32. Gradients are computed during forward, for the tensors that require one; a second
    backward of the same loss raises RuntimeError. n may be 0.
    """
    # Torch's function ignores autocast, rejects most pairs of types, and in bf16 and fp16 sums the
    # weight's gradient over chunks in that type: the error grows with n, and at 131,072 positions
    # is 9 (bf16) and 58 (fp16) times that of the plain loss.
    is_fp32 = hidden.dtype == weight.dtype == _product_type(hidden, weight) == torch.float32
    if is_fp32 and hasattr(functional, "linear_cross_entropy"):
        return torch_linear_cross_entropy(hidden, weight, bias, targets)
    return chunked_linear_cross_entropy(hidden, weight, bias, targets)


def torch_linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """Returns `linear_cross_entropy` of fp32 tensors by torch's own function (2.13 and later)."""
    from torch.nn import LinearCrossEntropyOptions

    # Torch's default chunk of 8 rows is several times slower. With reduction="sum" it computes the
    # gradients along with the value; with "none" it would compute the logits again in backward.
    options = LinearCrossEntropyOptions(acc_policy="compact", batch_chunk_size=CHUNK_SIZE)
    return functional.linear_cross_entropy(
        hidden, weight, targets, linear_bias=bias, reduction="sum", options=options
    )


def chunked_linear_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """Returns `linear_cross_entropy` by this module's own loop, for any floating-point types."""
    wanted = tuple(
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
        for tensor in (hidden, weight, bias)
    )
    dtype = _product_type(hidden, weight)
    return _ChunkedLoss.apply(hidden, weight, bias, targets, dtype, wanted)


@torch.no_grad()
def predicted_tokens(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the negative log-likelihood, fp32 [n], and likeliest word, int64 [n], per position.

    Shapes and types are those of `linear_cross_entropy`; nothing is differentiable.
    """
    likelihoods = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
    words = torch.empty_like(targets)
    weight = weight.to(_product_type(hidden, weight))
    for rows, _, logits in _chunks(hidden, weight, bias):
        highest, word = logits.max(1, keepdim=True)
        words[rows] = word.squeeze(1)
        logits.sub_(highest)
        of_targets = logits.gather(1, targets[rows, None])
        sums = logits.exp_().sum(1, keepdim=True)
        likelihoods[rows] = (sums.log_() - of_targets).squeeze(1)
    return likelihoods, words


class _ChunkedLoss(torch.autograd.Function):
    """The summed loss, whose gradients are computed while the logits of a chunk are in memory."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        dtype: torch.dtype,
        wanted: tuple[bool, bool, bool],
    ) -> Tensor:
        """Returns the sum, fp32 []; `wanted` says which of the first three get a gradient."""
        scale = HALF_SCALE if dtype == torch.float16 else 1.0
        for_hidden, for_weight, for_bias = (
            torch.zeros_like(tensor, dtype=torch.float32) if wants and tensor is not None else None
            for tensor, wants in zip((hidden, weight, bias), wanted, strict=True)
        )
        ctx.types = (hidden.dtype, weight.dtype, None if bias is None else bias.dtype)
        ctx.scale = scale
        ctx.gradients = (for_hidden, for_weight, for_bias)

        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        weight = weight.to(dtype)
        for rows, chunk, logits in _chunks(hidden, weight, bias):
            of_rows = targets[rows, None]
            logits.sub_(logits.amax(1, keepdim=True))
            of_targets = logits.gather(1, of_rows)
            sums = logits.exp_().sum(1, keepdim=True)
            total += (sums.log() - of_targets).sum()
            if not any(wanted):
                continue
            # The gradient of the logits: probabilities, less 1 at the target.
            logits.mul_(scale / sums)
            logits.scatter_(1, of_rows, logits.gather(1, of_rows) - scale)
            if for_bias is not None:
                for_bias += logits.sum(0)
            slopes = logits.to(dtype)
            if for_hidden is not None:
                _multiply(slopes, weight, out=for_hidden[rows])
            if for_weight is not None:
                _add_product(slopes.T, chunk, to=for_weight)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outgoing: Any) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Returns the gradients of forward's arguments, scaled in place by the incoming one."""
        if ctx.gradients is None:
            raise RuntimeError("linear_cross_entropy keeps its gradients for one backward only")
        gradients, ctx.gradients = ctx.gradients, None
        factor = outgoing[0] / ctx.scale
        scaled = (
            None if gradient is None else gradient.mul_(factor).to(dtype)
            for gradient, dtype in zip(gradients, ctx.types, strict=True)
        )
        return (*scaled, None, None, None)


def _product_type(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """Returns the type of the products: autocast's, or the wider of the two."""
    device = hidden.device.type
    if torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    dtype = torch.promote_types(hidden.dtype, weight.dtype)
    return dtype if dtype in (torch.bfloat16, torch.float16) else torch.float32


def chunk_starts(number: int) -> Iterable[int]:
    """Returns the first position of each chunk of a number of positions."""
    return range(0, number, CHUNK_SIZE)


def _chunks(
    hidden: Tensor, weight: Tensor, bias: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yields, per chunk, its slice of rows, these rows of `hidden` in the type of `weight`, and
    their logits, fp32 [chunk, v].

    All logits share one buffer, which the caller may overwrite.
    """
    size = min(CHUNK_SIZE, len(hidden))
    memory = torch.empty(size, len(weight), dtype=torch.float32, device=hidden.device)
    for start in chunk_starts(len(hidden)):
        rows = slice(start, min(start + CHUNK_SIZE, len(hidden)))
        chunk = hidden[rows].to(weight.dtype)
        logits = memory[: len(chunk)]
        _multiply(chunk, weight.T, out=logits)
        if bias is not None:
            logits.add_(bias)
        yield rows, chunk, logits


def _multiply(left: Tensor, right: Tensor, *, out: Tensor) -> None:
    """Writes left @ right into `out`, fp32, without overflow of fp16."""
    if left.dtype == torch.float32:
        torch.mm(left, right, out=out)
    elif left.is_cuda:
        torch.mm(left, right, out_dtype=torch.float32, out=out)
    elif left.dtype == torch.bfloat16:
        out.copy_(left @ right)  # rounded to bf16, torch's only bf16 product on a CPU
    else:
        torch.mm(left.float(), right.float(), out=out)


def _add_product(left: Tensor, right: Tensor, *, to: Tensor) -> None:
    """Adds left @ right to `to`, fp32."""
    if left.dtype == torch.float32:
        to.addmm_(left, right)
        return
    scratch = torch.empty_like(to[:WORD_BLOCK])
    for start in range(0, len(to), WORD_BLOCK):
        block = slice(start, start + WORD_BLOCK)
        product = scratch[: len(to[block])]
        _multiply(left[block], right, out=product)
        to[block].add_(product)
