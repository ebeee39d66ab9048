"""The environment of a run: what environment.json records, and libraries imported quietly."""

import logging
import os
import platform
import sys
import time
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from trainer.distributed.environment_variables import whole_number

PACKAGES = "torch accelerate deepspeed transformers datasets peft bitsandbytes".split()
TIME = "%Y-%m-%dT%H:%M:%S%z"
QUIETED = ("bitsandbytes", "torch.distributed")
NOISY_MODULES = r"(torch|transformers|peft|bitsandbytes|accelerate)\b"


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
        "started": time.strftime(TIME),
    }


@contextmanager
def quieted_libraries() -> Generator[None]:
    """Context manager: hides what libraries print while they are imported; nobody can act on it."""
    levels = {name: logging.getLogger(name).level for name in QUIETED}
    parallel = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    for name in QUIETED:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=NOISY_MODULES)
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if parallel is None:
            os.environ.pop("TOKENIZERS_PARALLELISM", None)
