"""environment.json: versions, machine and launch, and libraries that keep quiet."""

import logging
import os
import platform
import sys
import time
import warnings
from importlib.metadata import version
from typing import Any

from trainer.distributed.environment_variables import whole_number

PACKAGES = "torch accelerate deepspeed transformers datasets peft bitsandbytes".split()


def describe_environment() -> dict[str, Any]:
    """Returns the versions, the machine and the launch, as environment.json holds them."""
    import torch

    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": platform.machine(),
        "platform": platform.platform(),
        "num_cpus": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "gpus": gpus,
        "processes": whole_number("WORLD_SIZE", 1),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def quiet_libraries() -> None:
    """Keeps what libraries say while they are imported, and cannot be acted on, out of the log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in ("bitsandbytes", "torch.distributed"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(torch|transformers|peft|bitsandbytes|accelerate)\b")
