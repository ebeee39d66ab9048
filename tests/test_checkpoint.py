"""Checkpoints: published whole or not at all, and exact when they are read back."""

import copy
import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from torch import nn
from torch.nn import functional

from trainer.checkpoint import (
    CheckpointStore,
    load_checkpoint,
    load_weights,
    read_record,
    verify,
    write_checkpoint,
)
from trainer.config import Optimizer
from trainer.engine import full_moments, full_weights
from trainer.errors import CheckpointError
from trainer.loss_scale import loss_scale, set_loss_scale
from trainer.optim import build_optimizer
from trainer.state import TrainState


def fill(folder: Path) -> None:
    (folder / "weights.bin").write_bytes(os.urandom(1000))
    (folder / "state.json").write_text("{}")


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def test_a_run_without_checkpoints_has_none(store):
    assert store.steps() == []
    assert store.newest() == (None, [])


def test_published_checkpoints_are_found_in_the_order_of_their_steps(store):
    for step in (900, 1000, 20):
        assert store.publish(step, fill) == store.path(step)
    assert store.steps() == [20, 900, 1000]
    assert store.newest() == (store.path(1000), [])
    assert store.path(20).name == "step-00000020"
    assert sorted(path.name for path in store.folder.iterdir() if path.name[0] == ".") == []


def test_a_step_that_is_published_again_replaces_the_first(store):
    store.publish(5, fill)
    store.publish(5, lambda folder: (folder / "other.bin").write_bytes(b"new"))
    assert sorted(file.name for file in store.path(5).iterdir()) == ["manifest.json", "other.bin"]
    verify(store.path(5))


def truncate(checkpoint: Path) -> None:
    os.truncate(checkpoint / "weights.bin", 999)


def flip_a_bit(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "weights.bin").read_bytes())
    content[500] ^= 1
    (checkpoint / "weights.bin").write_bytes(content)


def remove_a_file(checkpoint: Path) -> None:
    (checkpoint / "weights.bin").unlink()


def remove_the_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def cut_the_manifest(checkpoint: Path) -> None:
    os.truncate(checkpoint / "manifest.json", 20)


DAMAGES = [truncate, flip_a_bit, remove_a_file, remove_the_manifest, cut_the_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(store, damage):
    for step in (1, 2):
        store.publish(step, fill)
    damage(store.path(2))
    found, passed_over = store.newest()
    assert found == store.path(1)
    (reason,) = passed_over
    assert str(store.path(2)) in reason


def test_the_changed_file_is_named(store):
    flip_a_bit(store.publish(2, fill))
    with pytest.raises(CheckpointError, match=r"changed after it was written: weights\.bin$"):
        verify(store.path(2))


def test_where_all_are_damaged_each_is_named(store):
    for step in (1, 2):
        truncate(store.publish(step, fill))
    found, passed_over = store.newest()
    assert found is None
    assert ["step-00000002" in passed_over[0], "step-00000001" in passed_over[1]] == [True, True]


@pytest.mark.parametrize(
    ("keep_last", "best_step", "kept"),
    [
        (1, None, [4]),
        (2, None, [3, 4]),
        (2, 1, [1, 3, 4]),
        (2, 4, [3, 4]),
        (1, 3, [3, 4]),
        (9, 1, [1, 2, 3, 4]),
    ],
)
def test_pruning_keeps_the_newest_and_the_best(store, keep_last, best_step, kept):
    for step in (1, 2, 3, 4):
        store.publish(step, fill)
    store.prune(keep_last=keep_last, spared={best_step})
    assert store.steps() == kept
    assert {path.name for path in store.folder.iterdir()} == {store.path(s).name for s in kept}
    for step in kept:
        verify(store.path(step))


def test_what_a_run_that_died_left_is_no_checkpoint_and_is_removed(store):
    store.publish(1, fill)
    for name in (".staging-00000002", ".staging-pruned-00000000"):
        (store.folder / name).mkdir()
        fill(store.folder / name)
    assert store.newest() == (store.path(1), [])
    store.publish(3, fill)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "step-00000001",
        "step-00000003",
    ]


def test_a_run_that_dies_while_it_writes_leaves_no_checkpoint(store):
    def die(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish(1, die)
    assert store.newest() == (None, [])
    store.publish(1, fill)
    verify(store.path(1))


@pytest.mark.parametrize(
    ("earlier", "sentence"), [([], "starts anew"), ([3, 6], "resumes from step 6")]
)
def test_a_full_disk_leaves_earlier_checkpoints_and_says_where_the_run_resumes(
    store, earlier, sentence
):
    for step in earlier:
        store.publish(step, fill)

    def full(folder: Path) -> None:
        fill(folder)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(CheckpointError, match=f"step 9 .*No space left on device.*{sentence}"):
        store.publish(9, full)
    assert store.steps() == earlier
    assert len(list(store.folder.iterdir())) == len(earlier)
    for step in earlier:
        verify(store.path(step))


# Weights and moments. The layers are wide enough for 8-bit moments, which smaller ones do not get.


def build(name: str, seed: int = 0) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first.weight": (96, 64), "first.bias": (96,), "second.weight": (4, 96)}
    parameters = {
        key: nn.Parameter(torch.randn(shape, generator=generator)) for key, shape in shapes.items()
    }
    momentum = 0.9 if name == "sgd" else 0.0
    settings = Optimizer(name=name, learning_rate=1e-2, momentum=momentum)
    return parameters, build_optimizer(parameters, settings)


def learn(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer, step: int) -> None:
    inputs = torch.randn(8, 64, generator=torch.Generator().manual_seed(step))
    hidden = functional.linear(inputs, parameters["first.weight"], parameters["first.bias"]).tanh()
    optimizer.zero_grad()
    functional.linear(hidden, parameters["second.weight"]).square().mean().backward()
    optimizer.step()


def moments(parameters, optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name} {entry}": torch.as_tensor(value)
        for name, parameter in parameters.items()
        for entry, value in optimizer.state[parameter].items()
        if value is not None
    }


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype, name
        assert torch.equal(one[name], other[name]), name


PLAIN = nn.Module()
"""What no engine wraps."""
STATE = TrainState(step=3, samples=24, tokens=99, loss_sum=0.1, best_step=2, best_value=1 / 3)


def write(folder: Path, parameters, optimizer, digest: str = "abc", scaler=None) -> Path:
    folder.mkdir()
    write_checkpoint(
        folder,
        weights=dict(full_weights(PLAIN, parameters)),
        moments=dict(full_moments(PLAIN, optimizer, parameters)),
        state=STATE,
        loss_scale=loss_scale(PLAIN, scaler),
        order_digest=digest,
        launch={},
    )
    return folder


def load(folder: Path, parameters, optimizer, digest: str = "abc", scaler=None) -> TrainState:
    return load_checkpoint(
        folder,
        objective=PLAIN,
        optimizer=optimizer,
        parameters=parameters,
        scaler=scaler,
        order_digest=digest,
    )


@pytest.mark.parametrize("name", ["adamw", "sgd", "adamw_8bit"])
def test_a_run_goes_on_bit_by_bit_as_if_it_had_never_stopped(name, tmp_path):
    parameters, optimizer = build(name)
    for step in range(3):
        learn(parameters, optimizer, step)
    folder = write(tmp_path / "step", parameters, optimizer)
    if name == "adamw_8bit":
        assert optimizer.state[parameters["first.weight"]]["state1"].dtype == torch.uint8
    found, found_optimizer = build(name, seed=1)
    if name == "sgd":
        learn(found, found_optimizer, 7)  # moments that are already there are replaced

    assert load(folder, found, found_optimizer) == STATE
    assert_equal(dict(found), dict(parameters))
    assert_equal(moments(found, found_optimizer), moments(parameters, optimizer))
    for step in (3, 4):
        learn(parameters, optimizer, step)
        learn(found, found_optimizer, step)
        assert_equal(dict(found), dict(parameters))
        assert_equal(moments(found, found_optimizer), moments(parameters, optimizer))


def test_without_its_moments_a_run_would_go_on_otherwise(tmp_path):
    parameters, optimizer = build("adamw")
    learn(parameters, optimizer, 0)
    folder = write(tmp_path / "step", parameters, optimizer)
    found, found_optimizer = build("adamw", seed=1)
    load_weights(folder, PLAIN, found)
    learn(parameters, optimizer, 1)
    learn(found, found_optimizer, 1)
    assert not torch.equal(found["first.weight"], parameters["first.weight"])


def test_names_decide_which_weights_belong_together(tmp_path):
    parameters, optimizer = build("adamw")
    learn(parameters, optimizer, 0)
    folder = write(tmp_path / "step", parameters, optimizer)
    found, _ = build("adamw", seed=1)
    found = dict(reversed(found.items()))
    found_optimizer = build_optimizer(found, Optimizer(learning_rate=1e-2))
    load(folder, found, found_optimizer)
    assert_equal(
        moments(dict(sorted(found.items())), found_optimizer),
        moments(dict(sorted(parameters.items())), optimizer),
    )


def test_a_scaler_comes_back(tmp_path):
    def scaler() -> torch.amp.GradScaler:
        made = torch.amp.GradScaler("cpu", init_scale=4.0)
        made.scale(torch.ones(1))
        return made

    parameters, optimizer = build("adamw")
    before, after = scaler(), scaler()
    before.update(1024.0)
    folder = write(tmp_path / "step", parameters, optimizer, scaler=before)
    load(folder, parameters, optimizer, scaler=after)
    assert after.get_scale() == 1024.0
    assert loss_scale(PLAIN, after) == loss_scale(PLAIN, before)


def test_the_scale_grows_on_under_another_engine():
    """DeepSpeed counts steps past 2,000, which torch's scaler would wait for in vain."""
    zero: Any = nn.Module()
    scaler = DynamicLossScaler(2.0**10, 2000, 1, 1, consecutive_hysteresis=False)
    zero.optimizer = SimpleNamespace(loss_scaler=scaler)
    for _ in range(4500):
        scaler.update_scale(overflow=False)
    kept = loss_scale(zero, None)
    assert kept == {"scale": 2.0**12, "steps": 500}
    torchs = torch.amp.GradScaler("cpu")
    torchs.scale(torch.ones(1))
    set_loss_scale(PLAIN, torchs, kept)
    assert loss_scale(PLAIN, torchs) == kept


def test_other_training_data_is_refused(tmp_path):
    parameters, optimizer = build("adamw")
    folder = write(tmp_path / "step", parameters, optimizer, digest="abc")
    before = copy.deepcopy(dict(parameters))
    with pytest.raises(CheckpointError, match="the training data changed"):
        load(folder, parameters, optimizer, digest="abd")
    assert_equal(dict(parameters), before)


def test_another_model_is_refused_and_the_weight_named(tmp_path):
    parameters, optimizer = build("adamw")
    folder = write(tmp_path / "step", parameters, optimizer)
    with pytest.raises(CheckpointError, match=r"second\.weight is only in one of them"):
        load_weights(folder, PLAIN, {k: p for k, p in parameters.items() if k != "second.weight"})


def test_the_numbers_of_a_checkpoint_are_readable(tmp_path):
    folder = write(tmp_path / "step", *build("adamw"))
    assert read_record(folder)["state"] == STATE.as_dict()
    assert json.loads((folder / "state.json").read_text())["order_digest"] == "abc"
