"""The energy of this launch's GPUs, as NVML counts it."""

import importlib
from typing import Any

from trainer.distributed.environment_variables import whole_number


def energy_counter() -> float | None:
    """Returns the joules that the GPUs of this launch have used since their driver was loaded.

    The difference of two calls is the energy used in between, by whatever ran on them. None if
    there is no GPU, if some are in other machines, if pynvml is not installed, or if NVML does not
    count (before Volta).
    """
    import torch

    num_ranks = whole_number("LOCAL_WORLD_SIZE", 1)
    if not torch.cuda.is_available() or whole_number("WORLD_SIZE", 1) != num_ranks:
        return None
    try:
        nvml: Any = importlib.import_module("pynvml")
    except ImportError:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return None
    try:
        return sum(
            nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByUUID(uuid)) / 1000
            for uuid in map(_uuid, range(min(num_ranks, torch.cuda.device_count())))
        )
    except nvml.NVMLError:
        return None
    finally:
        nvml.nvmlShutdown()


def _uuid(index: int) -> str:
    """Returns the UUID by which NVML finds a GPU; its index may be another in NVML."""
    import torch

    properties: Any = torch.cuda.get_device_properties(index)
    return f"GPU-{properties.uuid}"
