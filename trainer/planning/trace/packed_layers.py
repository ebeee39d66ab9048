"""Linear layers as bitsandbytes packs them, of any size, whose weights have no contents.

bitsandbytes' own parameters pack a weight when it moves to a device, which needs its contents.
The scales are buffers here, so that they move with the layer; `refer` must follow a move.
"""

from typing import Any

import torch
from bitsandbytes.autograd._functions import MatMul8bitLt, MatmulLtState
from bitsandbytes.functional import QuantState
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn

from trainer.planning.trace.memory import CONSTANT

WEIGHTS_PER_SCALE, SCALES_PER_SCALE = 64, 256


class Packed4bit(Linear4bit):
    """An NF4 layer. With `double`, its scales are 8-bit numbers with scales of their own."""

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, *, double: bool) -> None:
        _take_sizes(self, linear)
        self.shape, self.nested = linear.weight.shape, double
        self.compute_dtype, self.compute_type_is_set = dtype, True
        self.quant_storage, self.support_avx512bf16_for_cpu = torch.uint8, False
        num_weights = linear.weight.numel()
        num_scales = -(-num_weights // WEIGHTS_PER_SCALE)
        packed = _empty((num_weights + 1) // 2, 1, dtype=torch.uint8)
        self.weight: Any = nn.Parameter(packed, requires_grad=False)
        self._keep("code", _empty(16))
        self._keep("scales", _empty(num_scales, dtype=torch.uint8 if double else torch.float32))
        if double:
            self._keep("code2", _empty(256))
            self._keep("scales2", _empty(-(-num_scales // SCALES_PER_SCALE)))
            self._keep("offset", _empty())
        self.refer()

    def refer(self) -> None:
        """Makes the weight refer to the scales as they are now."""
        kept = {name: self.get_buffer(CONSTANT + name) for name in self._kept()}
        second = None
        if self.nested:
            second = QuantState(
                absmax=kept["scales2"],
                blocksize=SCALES_PER_SCALE,
                code=kept["code2"],
                dtype=torch.float32,
            )
        state = QuantState(
            absmax=kept["scales"],
            shape=self.shape,
            code=kept["code"],
            blocksize=WEIGHTS_PER_SCALE,
            quant_type="nf4",
            dtype=self.compute_dtype,
            offset=kept.get("offset"),
            state2=second,
        )
        self.weight.quant_state = self.quant_state = state
        self.weight.quant_type, self.weight.bnb_quantized = "nf4", True
        self.weight.compress_statistics = self.nested

    def _keep(self, name: str, tensor: Tensor) -> None:
        self.register_buffer(CONSTANT + name, tensor, persistent=False)

    def _kept(self) -> tuple[str, ...]:
        return ("code", "scales", *(("code2", "scales2", "offset") if self.nested else ()))


class Packed8bit(Linear8bitLt):
    """An LLM.int8 layer; `on_gpu` says whether it computes in 8 bits, as it does on GPUs only.

    Real layers also compute a few outlier columns in 16 bits; these take little memory and are left
    out.
    """

    def __init__(self, linear: nn.Linear, *, on_gpu: bool) -> None:
        _take_sizes(self, linear)
        self.on_gpu, self.index = on_gpu, None
        self.state: Any = MatmulLtState()
        self.state.has_fp16_weights = False
        weight = _empty(*linear.weight.shape, dtype=torch.int8)
        self.weight: Any = nn.Parameter(weight, requires_grad=False)
        self.register_buffer(f"{CONSTANT}scales", _empty(self.out_features), persistent=False)
        self.refer()

    def refer(self) -> None:
        """Makes the layer's state refer to weight and scales as they are now."""
        self.state.CB, self.state.SCB = self.weight.data, self.get_buffer(f"{CONSTANT}scales")
        self.weight.CB = self.weight.SCB = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.on_gpu:
            return super().forward(x)
        bias: Any = self.bias
        bias = None if bias is None else bias.to(x.dtype)
        return MatMul8bitLt.apply(x, self.weight, None, bias, self.state)


def _take_sizes(layer: Any, linear: nn.Linear) -> None:
    nn.Module.__init__(layer)
    layer.in_features, layer.out_features = linear.in_features, linear.out_features
    layer.bias = linear.bias


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")
