"""What DeepSpeed compiles: compiler, operators, and locks that killed processes left."""

import os
from collections.abc import Iterator
from pathlib import Path

from trainer.doctor.finding import Finding, failure
from trainer.errors import LaunchError
from trainer.wording import listed


def about_extensions() -> Iterator[Finding]:
    """Yields whether DeepSpeed can compile its operators, which are compiled, and stale locks."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME, get_cxx_compiler, get_default_build_root

    from trainer.engines.deepspeed import check_compiler
    from trainer.engines.extension_locks import own_folder, stale_locks
    from trainer.engines.operators import operators

    named = os.environ.get("TORCH_EXTENSIONS_DIR")
    folder = Path(named) if named else own_folder() or Path(get_default_build_root())
    try:
        check_compiler()
    except LaunchError as error:  # only launches with DeepSpeed need them
        yield failure("no-compiler", error, "warning")
    else:
        yield Finding("compiler", "fine", f"{get_cxx_compiler()} and ninja are installed")
    yield from about_cuda_compiler(CUDA_HOME, has_gpu=torch.cuda.is_available())
    known = list(operators(folder))
    usable = [operator.name for operator in known if operator.compatible]
    compiled = [operator.name for operator in known if operator.compiled]
    ready = f"compiled: {listed(compiled)}" if compiled else "none is compiled yet"
    yield Finding(
        "operators",
        "fine" if usable else "warning",
        f"DeepSpeed can compile {listed(usable) or 'none of its operators'}; {ready}",
        None if usable else "install a C++ compiler, and the CUDA toolkit of torch's version",
        {"compatible": usable, "compiled": compiled},
    )
    if any(operator.name == "async_io" and not operator.compatible for operator in known):
        yield Finding(
            "no-async-io",
            "note",
            "DeepSpeed cannot offload to NVMe disks: it needs libaio",
            "install libaio-dev to use accelerate_configs/zero3-nvme.yaml",
        )
    yield from _locks(stale_locks(folder), removed=named is None)
    if named is None:
        foreign = [lock for place in folder.parent.glob("py3*") for lock in stale_locks(place)]
        yield from _locks(foreign, by_others=True)


def about_cuda_compiler(home: str | None, *, has_gpu: bool) -> Iterator[Finding]:
    """Yields whether operators for GPUs can be compiled; `home` is the folder of the CUDA toolkit,
    None if torch finds none."""
    if has_gpu and (home is None or not (Path(home) / "bin" / "nvcc").exists()):
        yield Finding(
            "no-nvcc",
            "note",
            "there is no CUDA compiler (nvcc): DeepSpeed can compile no operator for GPUs",
            "install the CUDA toolkit of torch's version if an operator is asked for",
        )


def _locks(
    locks: list[Path], *, removed: bool = False, by_others: bool = False
) -> Iterator[Finding]:
    """Yields what stale locks do: a start with DeepSpeed removes those in the trainer's own folder,
    and waits for those in a folder that the environment names; `by_others` are in torch's own."""
    if not locks:
        return
    number = f"{len(locks)} lock{'s' * (len(locks) > 1)}"
    message, figures = f"killed processes left {number}", {"locks": [str(lock) for lock in locks]}
    if removed:
        message += f" such as {locks[0]}, which the next start with DeepSpeed removes"
        yield Finding("stale-locks", "note", message, None, figures)
        return
    who = "other programs that compile the same extension" if by_others else "DeepSpeed"
    yield Finding(
        "stale-locks",
        "warning" if by_others else "failure",
        f"{message}, for which {who} would wait forever",
        f"delete {locks[0]}" + f" and {len(locks) - 1} more" * (len(locks) > 1),
        figures,
    )
