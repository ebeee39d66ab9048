"""Keeps transformers from writing to the terminal."""

from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def quiet_transformers(*, progress_bar: bool = False) -> Generator[None]:
    """Context manager: transformers logs only errors, and shows a progress bar only on request.

    Restores its settings on exit.
    """
    from transformers.utils import logging

    level, had_bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if not progress_bar:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if had_bar:
            logging.enable_progress_bar()
