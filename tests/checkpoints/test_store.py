"""Checkpoints: published completely or not at all, and read back bit by bit."""

import copy
import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from trainer.checkpoints.load import load_checkpoint, load_weights
from trainer.checkpoints.record import (
    fingerprint,
    read_manifest,
    read_record,
    verify,
    write_record,
)
from trainer.checkpoints.shards import ShardWriter
from trainer.checkpoints.store import CheckpointStore
from trainer.engines.loss_scale import loss_scale, set_loss_scale
from trainer.engines.portable_state import full_moments, full_weights
from trainer.errors import CheckpointError
from trainer.optim import build_optimizer
from trainer.recipe.training import Checkpoint, Optimizer
from trainer.state import TrainState


def fill(folder: Path) -> None:
    for name in ("model-00001.safetensors", "optimizer-00001.safetensors"):
        (folder / name).write_bytes(os.urandom(1000))
    step = int(re.search(r"[0-9]{8}", folder.name)[0])
    (folder / "state.json").write_text(json.dumps(record(step)))


def record(step: int, **other: Any) -> dict[str, Any]:
    numbers = {"order_digest": "", "launch": {}, "ends_epoch": False}
    return {"state": {"step": step}, **numbers, **other}


def publish(store: CheckpointStore, step: int, write: Callable[[Path], object] = fill) -> Path:
    folder = store.stage(step)
    write(folder)
    return store.publish(folder, step, {file.name: fingerprint(file) for file in folder.iterdir()})


@pytest.fixture
def store(tmp_path: Path) -> CheckpointStore:
    return CheckpointStore(tmp_path / "checkpoints")


def test_a_run_without_checkpoints_has_none(store):
    assert store.steps() == []
    assert store.newest() == (None, [])


def test_published_checkpoints_are_found_in_the_order_of_their_steps(store):
    for step in (900, 1000, 20):
        assert publish(store, step) == store.path(step)
    assert store.steps() == [20, 900, 1000]
    assert store.newest() == (store.path(1000), [])
    assert store.path(20).name == "step-00000020"
    assert sorted(path.name for path in store.folder.iterdir() if path.name[0] == ".") == []


def test_a_step_that_is_published_again_replaces_the_first(store):
    publish(store, 5)
    publish(store, 5, lambda folder: (fill(folder), (folder / "other.bin").write_bytes(b"new")))
    assert (store.path(5) / "other.bin").read_bytes() == b"new"
    verify(store.path(5))


def truncate(checkpoint: Path) -> None:
    os.truncate(checkpoint / "model-00001.safetensors", 999)


def flip_a_bit(checkpoint: Path) -> None:
    content = bytearray((checkpoint / "model-00001.safetensors").read_bytes())
    content[500] ^= 1
    (checkpoint / "model-00001.safetensors").write_bytes(content)


def remove_a_file(checkpoint: Path) -> None:
    (checkpoint / "model-00001.safetensors").unlink()


def remove_the_manifest(checkpoint: Path) -> None:
    (checkpoint / "manifest.json").unlink()


def cut_the_manifest(checkpoint: Path) -> None:
    os.truncate(checkpoint / "manifest.json", 20)


DAMAGES = [truncate, flip_a_bit, remove_a_file, remove_the_manifest, cut_the_manifest]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_named(store, damage):
    for step in (1, 2):
        publish(store, step)
    damage(store.path(2))
    found, passed_over = store.newest()
    assert found == store.path(1)
    (reason,) = passed_over
    assert str(store.path(2)) in reason
    store.set_aside_after(found)
    assert store.steps() == [1]


def test_a_checkpoint_of_an_older_version_says_so(store):
    checkpoint = publish(store, 1)
    (checkpoint / "manifest.json").write_text('{"model.safetensors": {"bytes": 1, "sha256": ""}}')
    with pytest.raises(CheckpointError, match="by an older version"):
        verify(checkpoint)


def test_the_changed_file_is_named(store):
    flip_a_bit(publish(store, 2))
    with pytest.raises(CheckpointError, match="changed after it was written") as caught:
        verify(store.path(2))
    assert caught.value.key == str(store.path(2))
    assert caught.value.value == ["model-00001.safetensors"]


def test_if_all_are_damaged_each_is_named(store):
    for step in (1, 2):
        truncate(publish(store, step))
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
        publish(store, step)
    store.prune(Checkpoint(keep_last=keep_last), best_step)
    assert store.steps() == kept
    assert {path.name for path in store.folder.iterdir()} == {store.path(s).name for s in kept}
    for step in kept:
        verify(store.path(step), resumable=step > 4 - keep_last)


def test_checkpoints_kept_beyond_the_last_hold_weights_only(store):
    for step in (1, 2, 3):
        publish(store, step)
    for _ in range(2):
        store.prune(Checkpoint(keep_last=1), 2)
        names = sorted(file.name for file in store.path(2).iterdir())
        assert names == ["manifest.json", "model-00001.safetensors", "state.json"]
    verify(store.path(2))
    flip_a_bit(store.path(3))
    found, passed_over = store.newest()
    assert found is None
    assert "holds weights only" in passed_over[1]


def test_ends_of_epochs_are_kept_if_the_recipe_says_so(store):
    for step in range(1, 7):
        text = json.dumps(record(step, ends_epoch=step % 2 == 0))
        publish(store, step, lambda folder, text=text: (folder / "state.json").write_text(text))
    store.prune(Checkpoint(keep_last=1, every_epoch=True), 1)
    assert store.steps() == [1, 2, 4, 6]
    store.prune(Checkpoint(keep_last=1, keep_best=False), 1)
    assert store.steps() == [6]


def test_a_run_that_dies_while_moments_are_removed_leaves_them_unlisted(store, monkeypatch):
    """The manifest is rewritten first; files that it no longer lists are removed the next time."""
    for step in (1, 2):
        publish(store, step)

    def die(_path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt):
            store.prune(Checkpoint(keep_last=1), 1)
    verify(store.path(1))
    assert not read_manifest(store.path(1))["resumable"]
    store.prune(Checkpoint(keep_last=1), 1)
    assert not list(store.path(1).glob("optimizer-*"))


@pytest.mark.parametrize("deaths", [1, 2, 3])
def test_a_run_that_dies_while_it_replaces_a_checkpoint_keeps_one_of_them(
    store, deaths, monkeypatch
):
    """It dies before the first rename, between the two, or before the old one is removed."""
    publish(store, 5)
    before = read_manifest(store.path(5))
    calls: list[str] = []

    def dies(kind: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            calls.append(kind)
            if len(calls) == deaths:
                raise KeyboardInterrupt
            return real(*arguments, **options)

        return call

    folder = store.stage(5)
    fill(folder)
    sums = {file.name: fingerprint(file) for file in folder.iterdir()}
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dies("rename", Path.rename))
        patched.setattr(shutil, "rmtree", dies("rmtree", shutil.rmtree))
        with pytest.raises(KeyboardInterrupt):
            store.publish(folder, 5, sums)
    assert calls == ["rename", "rename", "rmtree"][:deaths]
    store.recover()
    found, _ = store.newest()
    assert found == store.path(5)
    assert read_manifest(found) == (before if deaths < 3 else {"resumable": True, "files": sums})
    assert [path.name for path in store.folder.iterdir()] == ["step-00000005"]


def test_folders_that_cannot_be_removed_yet_do_not_stop_a_run(store, monkeypatch):
    """As on NFS, while another machine reads it."""
    really = shutil.rmtree

    def busy(_path: Path, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise OSError(errno.ENOTEMPTY, "Directory not empty")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", busy)
        for step in (5, 5, 6, 7):
            publish(store, step)
            store.prune(Checkpoint(keep_last=1), None)
        assert store.newest() == (store.path(7), [])
    assert shutil.rmtree is really
    store.recover()
    assert [path.name for path in store.folder.iterdir()] == ["step-00000007"]


def test_a_file_that_the_manifest_does_not_list_is_not_read(tmp_path):
    parameters, optimizer = build("adamw")
    checkpoint = write(tmp_path / "run", parameters, optimizer)
    save_file({"first.bias": torch.full((96,), 9.0)}, checkpoint / "model-99999.safetensors")
    found, _ = build("adamw", seed=1)
    load_weights(checkpoint, PLAIN, found)
    assert_equal(dict(found), dict(parameters))


def test_a_checkpoint_with_a_changed_file_is_not_published(store):
    folder = store.stage(1)
    fill(folder)
    sums = {file.name: fingerprint(file) for file in folder.iterdir()}
    os.truncate(folder / "model-00001.safetensors", 10)
    with pytest.raises(OSError, match=r"model-00001\.safetensors is not as it was written"):
        store.publish(folder, 1, sums)
    assert store.steps() == []


def test_a_folder_that_cannot_be_read_is_passed_over(store):
    publish(store, 1)
    store.path(2).symlink_to(store.path(2))  # in a circle, so that root cannot read it either
    found, passed_over = store.newest()
    assert found == store.path(1)
    assert "step-00000002 is not a complete checkpoint" in passed_over[0]
    store.set_aside_after(found)
    assert store.steps() == [1]


def test_leftovers_of_a_dead_run_are_not_checkpoints_and_are_removed(store):
    publish(store, 1)
    for name in (".staging-00000002-ab", ".pruned-00000000-cd", ".replaced-00000001-ef"):
        (store.folder / name).mkdir()
        fill(store.folder / name)
    assert store.newest() == (store.path(1), [])
    publish(store, 3)
    assert sorted(path.name for path in store.folder.iterdir()) == [
        "step-00000001",
        "step-00000003",
    ]


def test_a_run_that_dies_while_it_writes_leaves_no_checkpoint(store):
    def die(folder: Path) -> None:
        fill(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(store, 1, die)
    assert store.newest() == (None, [])
    publish(store, 1)
    verify(store.path(1))


# Weights and moments. The layers are wide enough to get 8-bit moments.


def build(name: str, seed: int = 0) -> tuple[dict[str, nn.Parameter], torch.optim.Optimizer]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"first.weight": (96, 64), "first.bias": (96,), "second.weight": (4, 96)}
    parameters = {
        key: nn.Parameter(torch.randn(shape, generator=generator)) for key, shape in shapes.items()
    }
    return parameters, build_optimizer(parameters, settings_of(name))


def settings_of(name: str) -> Optimizer:
    momentum = 0.9 if name == "sgd" else 0.0
    return Optimizer(name=name, learning_rate=1e-2, momentum=momentum)


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
"""An objective that no engine wraps."""
STATE = TrainState(step=3, samples=24, tokens=99, loss_sum=0.1, best_step=2, best_value=1 / 3)


def write(folder: Path, parameters, optimizer, digest: str = "abc", scaler=None) -> Path:
    store = CheckpointStore(folder)
    staging = store.stage(3)
    writer = ShardWriter(staging, rank=0, num_ranks=1, snapshot=False)
    writer.write("model", full_weights(PLAIN, parameters))
    writer.write("optimizer", full_moments(PLAIN, optimizer, parameters))
    files, error = writer.result()
    assert error is None
    write_record(
        staging,
        state=STATE,
        ends_epoch=False,
        loss_scale=loss_scale(PLAIN, scaler),
        metrics={},
        facts={"order_digest": digest, "launch": {}},
    )
    files["state.json"] = fingerprint(staging / "state.json")
    return store.publish(staging, 3, files)


def load(folder: Path, parameters, optimizer, digest: str = "abc", scaler=None) -> TrainState:
    name = {"SGD": "sgd", "AdamW": "adamw", "AdamW8bit": "adamw_8bit"}[type(optimizer).__name__]
    return load_checkpoint(
        folder,
        objective=PLAIN,
        optimizer=optimizer,
        settings=settings_of(name),
        parameters=parameters,
        scaler=scaler,
        order_digest=digest,
    )


@pytest.mark.parametrize("name", ["adamw", "sgd", "adamw_8bit"])
def test_a_resumed_run_equals_one_that_never_stopped_bit_by_bit(name, tmp_path):
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


def test_without_its_moments_a_run_learns_something_else(tmp_path):
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


def test_the_loss_scale_is_restored(tmp_path):
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
    """DeepSpeed's count of steps passes 2,000; torch's scaler would never reach its own 2,000."""
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
    with pytest.raises(CheckpointError, match="the training data changed") as caught:
        load(folder, parameters, optimizer, digest="abd")
    assert caught.value.hint == "give the run the same data or another --run-dir"
    assert_equal(dict(parameters), before)


def test_another_model_is_refused_and_the_weight_named(tmp_path):
    parameters, optimizer = build("adamw")
    folder = write(tmp_path / "step", parameters, optimizer)
    with pytest.raises(CheckpointError, match="is of another model") as caught:
        load_weights(folder, PLAIN, {k: p for k, p in parameters.items() if k != "second.weight"})
    assert (caught.value.key, caught.value.value) == (str(folder), "second.weight")


def test_the_numbers_of_a_checkpoint_are_readable(tmp_path):
    folder = write(tmp_path / "step", *build("adamw"))
    assert read_record(folder)["state"] == STATE.as_dict()
    assert json.loads((folder / "state.json").read_text())["order_digest"] == "abc"


# Tensors that agree with the manifest, but not with the model or its optimizer.


def rewritten(checkpoint: Path, kind: str, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes tensors of a checkpoint, and their fingerprint in its manifest."""
    file = checkpoint / f"{kind}-00001.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][file.name] = fingerprint(file)
    manifest.pop("checksum")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda tensors: tensors.pop(name)


def of(name: str, value: torch.Tensor) -> Callable[[dict[str, Any]], Any]:
    return lambda tensors: tensors.update({name: value})


BIAS = "first.bias"


@pytest.mark.parametrize(
    ("optimizer", "kind", "change", "tensor", "problem"),
    [
        ("adamw", "model", of(BIAS, torch.ones(1)), BIAS, "does not fit"),
        ("adamw", "model", of(BIAS, torch.ones(96).half()), BIAS, "does not fit"),
        ("adamw", "model", of("other", torch.ones(1)), "other", "is of another model"),
        ("adamw", "optimizer", dict.clear, "first.weight", "has no moments"),
        ("adamw", "optimizer", without(f"{BIAS}|exp_avg"), f"{BIAS}|exp_avg", "another optimizer"),
        ("adamw", "optimizer", of("x|step", torch.ones(())), "x", "does not have"),
        ("adamw", "optimizer", of(f"{BIAS}|exp_avg", torch.ones(1)), f"{BIAS}|exp_avg", "not fit"),
        ("adamw", "optimizer", of(f"{BIAS}|step", torch.ones(()) * 9), f"{BIAS}|step", "1 to 3"),
        ("adamw", "optimizer", of(f"{BIAS}|step", torch.zeros(())), f"{BIAS}|step", "1 to 3"),
        ("sgd", "optimizer", dict.clear, "first.weight", "has no moments"),
        ("sgd", "optimizer", of(f"{BIAS}|exp_avg", torch.ones(96)), f"{BIAS}|exp_avg", "optimizer"),
        ("adamw_8bit", "optimizer", without("first.weight|qmap1"), "first.weight|qmap1", "another"),
        (
            "adamw_8bit",
            "optimizer",
            of("first.weight|absmax1", torch.ones(1)),
            "first.weight|absmax1",
            "does not fit",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, optimizer, kind, change, tensor, problem):
    checkpoint, refused = load_changed(tmp_path, optimizer, kind, change)
    assert (refused.key, refused.value) == (str(checkpoint), tensor)
    assert problem in str(refused)
    assert "--run-dir" in refused.hint


def test_a_refused_tensor_is_named_with_what_it_has_and_what_it_needs(tmp_path):
    _, refused = load_changed(tmp_path, "adamw", "model", of(BIAS, torch.ones(1)))
    assert "first.bias has shape [1] and needs [96]" in str(refused)


def test_values_that_are_not_numbers_are_refused(tmp_path):
    nan = of(BIAS, torch.full((96,), torch.nan))
    _, refused = load_changed(tmp_path, "adamw", "model", nan)
    assert "first.bias in model-00001.safetensors holds values that are not numbers" in str(refused)


def load_changed(
    folder: Path, optimizer: str, kind: str, change: Callable[[dict[str, Any]], Any]
) -> tuple[Path, CheckpointError]:
    """Returns a checkpoint with changed tensors that verifies, and why it was not loaded."""
    parameters, adam = build(optimizer)
    learn(parameters, adam, 0)
    checkpoint = write(folder / "run", parameters, adam)
    fresh, fresh_adam = build(optimizer, seed=1)
    rewritten(checkpoint, kind, change)
    verify(checkpoint, resumable=True)
    with pytest.raises(CheckpointError) as caught:
        load(checkpoint, fresh, fresh_adam)
    return checkpoint, caught.value


def test_a_parameter_that_never_learned_has_no_moments(tmp_path):
    parameters, adam = build("adamw")
    adam.zero_grad()
    parameters["first.bias"].square().sum().backward()
    adam.step()
    checkpoint = write(tmp_path / "run", parameters, adam)
    found, found_adam = build("adamw")
    assert load(checkpoint, found, found_adam) == STATE
    assert_equal(dict(found), dict(parameters))
