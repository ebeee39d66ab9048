"""Caches of their own, no network, and a small recipe for every test."""

import copy
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

# Hugging Face's libraries read these when they are imported, so fixtures would come too late.
# Commands that a test starts inherit them.
CACHE = Path(tempfile.mkdtemp(prefix="trainer-tests-"))
for _name in [name for name in os.environ if name.startswith("HF_") and name.endswith("_CACHE")]:
    del os.environ[_name]
os.environ.update(
    TRAINER_CACHE=str(CACHE / "trainer"),
    HF_HOME=str(CACHE / "huggingface"),
    HF_DATASETS_CACHE=str(CACHE / "huggingface" / "datasets"),
    HF_HUB_OFFLINE="1",
    CUDA_VISIBLE_DEVICES="",  # tests/gpu starts processes of its own
    TOKENIZERS_PARALLELISM="false",
    OMP_NUM_THREADS="1",  # several threads only wait for each other on the models of tests
)
os.environ.pop("TRANSFORMERS_CACHE", None)

import hypothesis  # noqa: E402
import pytest  # noqa: E402
import yaml  # noqa: E402
from hypothesis.configuration import set_hypothesis_home_dir  # noqa: E402

# No deadline on a machine that is shared, and no folder .hypothesis in the repository.
set_hypothesis_home_dir(CACHE / "hypothesis")
hypothesis.settings.register_profile("trainer", deadline=None, database=None, max_examples=60)
hypothesis.settings.load_profile("trainer")

Values = dict[str, Any]

REVIEWS: Values = {
    "seed": 1,
    "model": {
        "architecture": {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 64,
        },
        "initialization": "random",
        "tokenizer": {"train": "wordpiece", "vocab_size": 400},
    },
    "tuning": {"mode": "full"},
    "task": {"name": "classification", "labels": ["negative", "positive"]},
    "data": {
        "source": {"builtin": "reviews", "num_rows": 160, "seed": 1},
        "columns": {"text": "text", "label": "label"},
    },
    "batch": {"global_batch_size": 16, "micro_batch_size": 8, "max_seq_length": 32},
    "optimizer": {"name": "adamw", "learning_rate": 1e-3},
    "schedule": {"name": "linear", "epochs": 2, "warmup_ratio": 0.1},
    "precision": "fp32",
    "evaluation": {"baseline": True, "every": "epoch", "metric": "accuracy", "mode": "max"},
    "checkpoint": {"every_steps": 5, "keep_last": 2, "keep_best": True},
    "tracking": {"trackers": [], "log_every_steps": 5},
}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests that are marked `slow` or `gpu`, unless -m names that mark.

    So `-m distributed` is the second tier, and not the slow sweeps over ranks as well.
    """
    named = set(re.findall(r"\w+", config.getoption("markexpr")))
    absent = [mark for mark in ("slow", "gpu") if mark not in named]
    left_out = [item for item in items if any(map(item.get_closest_marker, absent))]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        kept = set(items) - set(left_out)
        items[:] = [item for item in items if item in kept]


@pytest.fixture(scope="session", autouse=True)
def own_caches() -> Generator[Path]:
    """Keeps what tests prepare out of the user's caches, and removes it after them."""
    yield CACHE
    shutil.rmtree(CACHE, ignore_errors=True)


@pytest.fixture
def reviews_recipe() -> Values:
    """A recipe, as a mapping to change at will: a tiny BERT on 160 built-in reviews, 20 steps."""
    return copy.deepcopy(REVIEWS)


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[[Values], Path]:
    """Writes a recipe's mapping as YAML into tmp_path and returns the file."""

    def write(values: Values, name: str = "recipe") -> Path:
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")
        return file

    return write


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Generator[Any]:
    """A process that has imported the libraries, from which programs are forked (`WarmServer`)."""
    from support.warm import WarmServer

    server = WarmServer(tmp_path_factory.mktemp("warm"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def commands(warm: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Real processes of the command line, started in a moment (`Commands`)."""
    from support.commands import Commands

    return Commands(warm, tmp_path_factory.mktemp("commands"))
