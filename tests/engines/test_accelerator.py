"""A run that is started from Python leaves its process as it was before."""

import logging
import os
import random
import socket
import warnings
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator, PartialState
from accelerate.state import AcceleratorState
from torch import distributed as dist

from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.errors import ConfigError
from trainer.loop import train
from trainer.process.environment import quieted_libraries
from trainer.process.switches import restored_switches
from trainer.state import TrainState
from trainer.tasks.recipe import parse_recipe

ROOT = Path(__file__).parents[2]


def free_port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


@pytest.fixture
def deepspeed(monkeypatch):
    """Sets what `accelerate launch` sets for one DeepSpeed rank on a CPU."""

    def set_environment(stage: int) -> None:
        variables = {
            "ACCELERATE_USE_DEEPSPEED": "true",
            "ACCELERATE_MIXED_PRECISION": "no",
            "ACCELERATE_DEEPSPEED_CONFIG_FILE": str(ROOT / "ds_configs" / f"zero{stage}.json"),
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": free_port(),
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_environment


def switches() -> dict[str, object]:
    import datasets
    import transformers

    return {
        "environment": dict(os.environ),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "filled memory": torch.utils.deterministic.fill_uninitialized_memory,
        "threads": torch.get_num_threads(),
        "linear": torch.nn.functional.linear,
        "generator": torch.get_rng_state().tolist(),
        "python's generator": random.getstate(),
        "verbosity": transformers.logging.get_verbosity(),
        "bars of models": transformers.utils.logging.is_progress_bar_enabled(),
        "bars of data": not datasets.are_progress_bars_disabled(),
        "process group": dist.is_initialized(),
        "accelerate": {**PartialState._shared_state, **AcceleratorState._shared_state},
    }


def steps_of(values, folder: Path) -> tuple[str, str, int]:
    """Trains in a launched context; returns its engine, precision and number of steps."""
    with launched(parse_recipe(values, "test"), folder) as accelerator:
        run = build_run(parse_recipe(values, "test"), accelerator, folder)
        state = train(run, accelerator, TrainState())
        return accelerator.distributed_type.value, accelerator.mixed_precision, state.step


@pytest.mark.filterwarnings("ignore")  # of DeepSpeed, which a launched rank does not raise
def test_runs_with_other_precisions_and_engines_fit_one_process(
    reviews_recipe, tmp_path, deepspeed
):
    reviews_recipe["schedule"] = {"name": "constant", "steps": 2}
    reviews_recipe["deterministic"] = True
    before = switches()
    assert steps_of(reviews_recipe, tmp_path / "1") == ("NO", "no", 2)
    assert switches() == before
    reviews_recipe["precision"] = "bf16"
    assert steps_of(reviews_recipe, tmp_path / "2") == ("NO", "bf16", 2)
    assert switches() == before
    for stage, precision in ((2, "fp32"), (3, "bf16")):
        deepspeed(stage)
        before = switches()
        reviews_recipe["precision"] = precision
        mixed = "no" if precision == "fp32" else precision
        assert steps_of(reviews_recipe, tmp_path / f"zero{stage}") == ("DEEPSPEED", mixed, 2)
        assert switches() == before


def test_a_run_that_fails_gives_the_process_back_too(reviews_recipe, tmp_path):
    before = switches()
    reviews_recipe["deterministic"] = True
    recipe = parse_recipe(reviews_recipe, "test")

    def fail() -> None:
        with launched(recipe, tmp_path):
            assert torch.are_deterministic_algorithms_enabled()
            raise ConfigError("stop here")

    with pytest.raises(ConfigError, match="stop here"):
        fail()
    assert switches() == before


def test_an_accelerator_of_the_caller_stays_usable(reviews_recipe, tmp_path):
    # Other tests of this process build an Accelerator and leave its state behind.
    AcceleratorState._reset_state(reset_partial_state=True)
    with restored_switches():
        mine = Accelerator(cpu=True, mixed_precision="bf16")
        with launched(parse_recipe(reviews_recipe, "test"), tmp_path) as accelerator:
            assert accelerator.mixed_precision == "no"
        assert mine.mixed_precision == "bf16"
        assert mine.num_processes == 1
    AcceleratorState._reset_state(reset_partial_state=True)


def test_libraries_are_quiet_for_a_while_only():
    level, filters = logging.getLogger("bitsandbytes").level, list(warnings.filters)
    with quieted_libraries():
        assert logging.getLogger("bitsandbytes").level == logging.ERROR
        assert warnings.filters != filters
    assert logging.getLogger("bitsandbytes").level == level
    assert warnings.filters == filters
