"""The operators that DeepSpeed compiles when they are first used."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OURS = (
    *("cpu_adam", "cpu_adagrad", "cpu_lion", "fused_adam", "fused_lamb", "fused_lion"),
    *("deepspeed_shm_comm", "async_io", "utils"),
)
"""Operators that a run of this package may need; `async_io` only for offload to NVMe."""


@dataclass(frozen=True)
class Operator:
    """An operator of DeepSpeed on this machine."""

    name: str
    compatible: bool
    """Whether it can be compiled, as far as DeepSpeed can tell without trying."""
    compiled: bool
    """Whether its library exists, installed or in the folder of extensions."""


def operators(folder: Path | None) -> Iterator[Operator]:
    """Yields the operators for this machine's accelerator, without compiling one.

    `folder` holds compiled extensions.
    """
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    builders: dict[str, Any] = ALL_OPS
    for name, builder in builders.items():
        if name in OURS:
            library = folder is not None and any((folder / name).glob("*.so"))
            compiled = library or bool(installed_ops.get(name))
            yield Operator(name, _is_compatible(builder), compiled)


def _is_compatible(builder: Any) -> bool:
    try:
        return bool(builder.is_compatible(verbose=False))
    except Exception:  # as without the CUDA toolkit
        return False
