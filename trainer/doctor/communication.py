"""Communication between ranks: NCCL for GPUs, gloo for CPUs, and the networks they are told."""

import os
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.doctor.finding import Finding, failure
from trainer.errors import LaunchError
from trainer.wording import excerpt, format_bytes, listed

SHARED_MEMORY = Path("/dev/shm")
LEAST_SHARED = 2**27
"""Bytes of shared memory below which NCCL may find none: containers have 64 MiB by default."""


def about_communication() -> Iterator[Finding]:
    """Yields which libraries the ranks of a run can use, and whether their networks exist."""
    import torch
    from torch import distributed as dist

    from trainer.distributed.environment_variables import check_variables

    try:
        check_variables()
    except LaunchError as error:
        yield failure("invalid-variable", error)
    num_gpus = torch.cuda.device_count()
    if not dist.is_available():
        yield Finding(
            "no-distributed",
            "warning",
            "this torch is built without torch.distributed: runs have one process",
            "install a torch that has it",
        )
        return
    nccl = dist.is_nccl_available() and torch.cuda.is_available()
    cuda: Any = torch.cuda
    version = ".".join(map(str, cuda.nccl.version())) if nccl else None
    libraries = [f"NCCL {version}"] * nccl + ["gloo"] * dist.is_gloo_available()
    yield Finding(
        "communication",
        "fine" if libraries else "warning",
        f"ranks can communicate by {listed(libraries) or 'no library'}",
        figures={"nccl": version, "gloo": dist.is_gloo_available()},
    )
    if num_gpus > 1 and not nccl:
        yield Finding(
            "no-nccl",
            "failure",
            f"torch has no NCCL, which the ranks of {num_gpus} GPUs need",
            "install a torch that is built with it",
        )
    yield from about_networks(os.environ, [name for _, name in socket.if_nameindex()])
    if num_gpus > 1:
        yield from about_shared_memory(SHARED_MEMORY)


def about_networks(variables: Mapping[str, str], networks: Sequence[str]) -> Iterator[Finding]:
    """Yields the variables that name networks which this machine does not have."""
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        value = variables.get(variable, "")
        wanted = [name for name in value.removeprefix("=").split(",") if name]
        if not wanted or value.startswith("^"):
            continue
        exact = variable.startswith("GLOO") or value.startswith("=")
        fits = any(
            network == name if exact else network.startswith(name)
            for name in wanted
            for network in networks
        )
        if not fits:
            yield Finding(
                "no-such-network",
                "failure",
                f"{variable}={excerpt(value)} names none of the networks {listed(networks)}",
                f"unset {variable}, or name one of them",
                {"variable": variable, "networks": list(networks)},
            )


def about_shared_memory(folder: Path) -> Iterator[Finding]:
    """Yields whether the shared memory suffices for the ranks of several GPUs."""
    total = shutil.disk_usage(folder).total
    if total < LEAST_SHARED:
        yield Finding(
            "little-shared-memory",
            "warning",
            f"{folder} has {format_bytes(total)}, too little for NCCL between several GPUs",
            "start the container with --shm-size 1g or --ipc host",
            {"bytes": total},
        )
