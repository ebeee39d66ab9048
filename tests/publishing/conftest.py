"""A hub on this machine that the hub's client talks to, with a token that may write."""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants
from support.publishing_hub import serve
from support.pushable_runs import write_pushable
from support.scripted_hub import WRITES, Hub

from trainer.publishing import client, push


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Generator[Hub]:
    """An empty hub. The client reads its address and its settings when it is imported, and takes
    large files to another service unless it is told to use LFS."""
    with serve() as served:
        pages = f"{served.address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "ENDPOINT", served.address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", pages)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", WRITES)
        for module in (client, push):
            monkeypatch.setattr(module, "WAITS", (0.01, 0.01, 0.01))
        yield served
        huggingface_hub.close_session()


@pytest.fixture
def pushable(tmp_path: Path) -> Callable[..., Path]:
    """Writes a finished run into a folder of tmp_path: (name, …), see `write_pushable`."""

    def write(name: str = "run", **settings: Any) -> Path:
        return write_pushable(tmp_path / name, **settings)

    return write
