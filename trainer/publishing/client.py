"""The hub's client: with the user's token, quiet, and with errors in a sentence each."""

import logging
import re
import time
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

from trainer.errors import ConfigError
from trainer.publishing.hub_errors import as_hub_error, is_transient

if TYPE_CHECKING:
    from huggingface_hub import HfApi

Answer = TypeVar("Answer")
WAITS = (1.0, 2.0, 4.0)
"""Seconds between attempts of a request that the client itself does not repeat."""


@dataclass(frozen=True)
class Client:
    """The hub, as one push uses it."""

    api: "HfApi"
    repo_id: str
    token: str | None = field(repr=False)
    """None reads without a token."""

    @property
    def address(self) -> str:
        """Address of the repository's page."""
        return f"{self.api.endpoint}/{self.repo_id}"


def is_offline() -> bool:
    """Returns whether HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE was set when the hub's client was
    imported."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def token_of_user() -> str | None:
    """Returns the token that huggingface_hub finds: HF_TOKEN, or that of `hf auth login`.

    Raises ConfigError, which does not show it, for a text that no token can be, and for a login
    that cannot be read or renewed.
    """
    from huggingface_hub import get_token

    try:
        token = get_token()
    except Exception as error:  # of the file system, or of a login through another service
        raise ConfigError(
            f"the token of the hub cannot be read ({type(error).__name__})",
            key="HF_TOKEN",
            hint="set HF_TOKEN to a token with write access, or run `hf auth login`",
        ) from None
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise ConfigError(
            "the token of the hub holds a space or another character that no token has",
            key="HF_TOKEN",
            hint="set HF_TOKEN to a token with write access, or run `hf auth login`",
        )
    return token


def open_client(repo_id: str, *, anonymous: bool = False) -> Client:
    """Returns a client with the user's token, if there is one.

    Raises ConfigError if there is none, unless `anonymous`, which reads without it; HubError if the
    hub cannot be asked.
    """
    from huggingface_hub import HfApi

    token = token_of_user()
    if token is None and not anonymous:
        raise ConfigError(
            "there is no token of the hub",
            key="HF_TOKEN",
            hint="run `hf auth login`, or set HF_TOKEN to a token with write access",
        )
    api = HfApi(token=token or False, library_name="trainer", library_version=version("trainer"))
    return Client(api, repo_id, token)


@contextmanager
def in_sentences(client: Client) -> Generator[None]:
    """Context manager: turns what the hub and its client raise into a HubError of one sentence.

    The token is in neither the sentence nor the error's causes.
    """
    try:
        yield
    except Exception as error:
        known = as_hub_error(error, client.repo_id, client.api.endpoint, client.token)
        if known is None:
            raise
        raise known from None


def repeated(ask: Callable[[], Answer], *, times: int = len(WAITS)) -> Answer:
    """Returns what the hub answers, asked up to `times` times again while it fails for the moment.

    Only for requests that change nothing, or that change the same when they are repeated.
    """
    for seconds in WAITS[:times]:
        try:
            return ask()
        except Exception as error:
            if not is_transient(error):
                raise
        time.sleep(seconds)
    return ask()


@contextmanager
def quiet(*, bars: bool) -> Generator[None]:
    """Context manager: the client prints nothing, but for progress bars if `bars`.

    Its log names addresses that anyone may upload to, and each attempt that failed.
    """
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    log = logging.getLogger("huggingface_hub")
    level, hidden = log.level, are_progress_bars_disabled()
    log.setLevel(logging.CRITICAL)
    if not bars and not hidden:
        disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        if not bars and not hidden:
            enable_progress_bars()
