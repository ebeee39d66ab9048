"""A task of another package, installed for the tests that ask for it."""

from collections.abc import Generator
from pathlib import Path

import pytest
from support.toy_task import installed


@pytest.fixture(scope="module")
def outside_package(tmp_path_factory: pytest.TempPathFactory) -> Generator[Path]:
    """The folder of an installed distribution that brings the task `length`."""
    folder = tmp_path_factory.mktemp("site-packages")
    installed(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder
