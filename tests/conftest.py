"""What every test gets: caches of its own, no network, and a small recipe."""

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

# Hugging Face's libraries read these variables when they are imported, before any fixture runs.
# Commands that a test starts inherit them.
CACHE = Path(tempfile.mkdtemp(prefix="trainer-tests-"))
for _name in [name for name in os.environ if name.startswith("HF_") and name.endswith("_CACHE")]:
    del os.environ[_name]
os.environ.update(
    TRAINER_CACHE=str(CACHE / "trainer"),
    HF_HOME=str(CACHE / "huggingface"),
    HF_DATASETS_CACHE=str(CACHE / "huggingface" / "datasets"),
    HF_HUB_OFFLINE="1",
    CUDA_VISIBLE_DEVICES="",  # the GPU script starts its own processes
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # models of tests are too small for several threads
)
os.environ.pop("TRANSFORMERS_CACHE", None)

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import support.reviews_recipe  # noqa: E402
import yaml  # noqa: E402
from hypothesis.configuration import set_hypothesis_home_dir  # noqa: E402

# A shared machine may be slow, so there is no deadline. Nothing is written into the repository.
set_hypothesis_home_dir(CACHE / "hypothesis")
hypothesis.settings.register_profile("trainer", deadline=None, database=None, max_examples=60)
hypothesis.settings.load_profile("trainer")

Values = dict[str, Any]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Returns 2 for the whole first tier, and 0, this process alone, for all else.

    Starting a worker takes seconds, and the ranks and jobs of the other tiers use all cores
    already; two workers would also wait for each other's SLURM cluster. `-n` overrides it.
    """
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    return 2 if whole and f"-m={config.getoption('markexpr')}" in config.getini("addopts") else 0


def pytest_unconfigure() -> None:
    """Removes the caches of this process."""
    shutil.rmtree(CACHE, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselects tests marked `slow` or `gpu` unless -m names that mark.

    So `-m distributed` selects the second tier without the slow sweeps over ranks.
    """
    named = set(re.findall(r"\w+", config.getoption("markexpr")))
    absent = [mark for mark in ("slow", "gpu") if mark not in named]
    left_out = [item for item in items if any(map(item.get_closest_marker, absent))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        kept = set(items) - set(left_out)
        items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session")
def own_caches() -> Path:
    """The folder of the tests' caches."""
    return CACHE


@pytest.fixture
def reviews_recipe() -> Values:
    """A recipe to change at will: a tiny BERT on 160 built-in reviews, 20 steps."""
    return support.reviews_recipe.reviews_recipe()


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[Values], Path]:
    """Writes a recipe as YAML into tmp_path and returns the file: (values, name)."""

    def write(values: Values, name: str = "recipe") -> Path:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def trained_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Loads a tokenizer that was trained on texts: (kind, vocab_size, texts).

    It is trained once a session. A test may change what is loaded, but not the files in the folder
    `name_or_path`.
    """
    folders: dict[tuple[Any, ...], Path] = {}

    def load(kind: Any, vocab_size: int, texts: Sequence[str]) -> Any:
        from trainer.models.tokenizers.tokenizer import load_tokenizer, train_tokenizer
        from trainer.recipe.model import Model, TrainedTokenizer

        key = (kind, vocab_size, *texts)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(kind)
            settings = TrainedTokenizer(train=kind, vocab_size=vocab_size)
            train_tokenizer(settings, texts, folders[key])
        return load_tokenizer(Model(name_or_path=str(folders[key])))

    return load


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    """A `WarmServer`: forks programs from a process that has imported the libraries."""
    from support.warm import WarmServer

    server = WarmServer(tmp_path_factory.mktemp("warm"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def commands(warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`Commands`: runs the command line in real processes that start in a moment."""
    from support.commands import Commands

    return Commands(warm, tmp_path_factory.mktemp("commands"))
