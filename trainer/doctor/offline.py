"""Examining without the network: the libraries of the hub read from their caches only."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def without_network() -> Generator[None]:
    """Context manager: nothing is fetched from the hub, whatever the environment allows."""
    from datasets import config
    from huggingface_hub import constants

    modules: tuple[Any, ...] = (constants, config)
    before = [module.HF_HUB_OFFLINE for module in modules]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def is_offline() -> tuple[bool, bool]:
    """Returns whether models, and whether data sets, are only read from caches."""
    from datasets import config
    from huggingface_hub import constants

    return constants.is_offline_mode(), bool(config.HF_HUB_OFFLINE)
