"""Settings of the whole process that a run changes, restored when it ends.

A run that is started from Python shares its process with other work, and with other runs.
"""

import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import Any


@contextmanager
def restored_switches() -> Generator[None]:
    """Context manager: on leaving, the process has the settings it had on entering.

    They are the environment variables, torch's deterministic mode, number of threads, generators
    and `linear` (DeepSpeed replaces it for ZeRO-3), and what transformers and datasets print.
    """
    with ExitStack() as stack:
        for group in (restored_environment, _torch, _transformers, _datasets):
            stack.enter_context(group())
        yield


@contextmanager
def restored_environment() -> Generator[None]:
    """Context manager: on leaving, the environment variables are those on entering."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextmanager
def hub_offline() -> Generator[None]:
    """Context manager: inside, Hugging Face's libraries read their caches and ask no network."""
    from datasets import config
    from huggingface_hub import constants

    flags: list[Any] = [constants, config]
    before = [flag.HF_HUB_OFFLINE for flag in flags]
    try:
        for flag in flags:
            flag.HF_HUB_OFFLINE = True
        yield
    finally:
        for flag, value in zip(flags, before, strict=True):
            flag.HF_HUB_OFFLINE = value


@contextmanager
def _torch() -> Generator[None]:
    import torch

    functional: Any = torch.nn.functional
    linear = functional.linear
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic
    fills_memory = memory.fill_uninitialized_memory
    num_threads = torch.get_num_threads()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        functional.linear = linear
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        memory.fill_uninitialized_memory = fills_memory
        if torch.get_num_threads() != num_threads:
            torch.set_num_threads(num_threads)


@contextmanager
def _transformers() -> Generator[None]:
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        (logging.enable_progress_bar if bars else logging.disable_progress_bar)()


@contextmanager
def _datasets() -> Generator[None]:
    shows_bars = not _datasets_hides_bars()
    try:
        yield
    finally:
        if shows_bars and _datasets_hides_bars():
            import datasets

            datasets.enable_progress_bars()


def _datasets_hides_bars() -> bool:
    """Returns whether the library hides its progress bars; does not import it to find out."""
    if "datasets" not in sys.modules:
        return False
    import datasets

    return datasets.are_progress_bars_disabled()
