"""Checkpoints of a run: saved at once or in the background, listed, verified and pruned."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from support.command_line import run
from support.launches import tensors_of
from support.paths import program

from trainer.checkpoints import shards
from trainer.checkpoints.disk_space import CheckpointSize, bytes_in, check_disk_space
from trainer.checkpoints.record import read_record, verify
from trainer.checkpoints.store import CheckpointStore
from trainer.errors import CheckpointError
from trainer.process import stop_request
from trainer.process.run_directory import claim
from trainer.recipe.training import Checkpoint
from trainer.tasks.classification.task import Classification
from trainer.wording import format_bytes


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["checkpoint"] |= {"every_steps": 4, "keep_last": 2}
    reviews_recipe["tracking"]["log_every_steps"] = 1
    return write_recipe(reviews_recipe)


def test_saving_in_the_background_does_not_change_what_is_learned(recipe, tmp_path, monkeypatch):
    """Writing takes longer than a step: a checkpoint is published after later steps."""
    run("train", recipe, "--run-dir", tmp_path / "at-once")
    lines = tmp_path / "background" / "metrics.jsonl"
    taken: dict[str, int] = {}
    really = shards._write

    def slowly(file: Path, shard: dict[str, torch.Tensor]) -> tuple[str, shards.Fingerprint]:
        time.sleep(0.3)
        steps = [json.loads(line)["step"] for line in lines.read_text().splitlines()]
        taken[f"{file.parent.name[:17]} {file.name}"] = max(steps)
        return really(file, shard)

    monkeypatch.setattr(shards, "_write", slowly)
    settings = ["--run-dir", tmp_path / "background", "--set", "checkpoint.async=true"]
    run("train", recipe, *settings)
    first = taken[".staging-00000004 model-00001.safetensors"]
    assert first > 4, "training waited"
    stores = [
        CheckpointStore(tmp_path / name / "checkpoints") for name in ("at-once", "background")
    ]
    assert stores[0].steps() == stores[1].steps()
    for step in stores[0].steps():
        verify(stores[1].path(step))
        one, other = (read_record(store.path(step)) for store in stores)
        assert one["metrics"].pop("sha256") != other["metrics"].pop("sha256")  # of the seconds
        assert [record["recipe"].pop("checkpoint.async") for record in (one, other)] == [
            False,
            True,
        ]
        assert one.pop("checksum") != other.pop("checksum")
        assert one == other
        for kind in ("model", "optimizer"):
            mine, theirs = (tensors_of(store.path(step), kind) for store in stores)
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)


@pytest.mark.parametrize("background", ["false", "true"])
def test_a_failed_write_ends_the_run_and_names_the_step_to_resume_from(
    background, recipe, tmp_path, monkeypatch
):
    really = shards._write

    def full(file: Path, shard: dict[str, torch.Tensor]) -> tuple[str, shards.Fingerprint]:
        if "00000008" in str(file):
            file.write_bytes(b"half")
            raise OSError(28, "No space left on device")
        return really(file, shard)

    settings = ["--run-dir", tmp_path / "run", "--set", f"checkpoint.async={background}"]
    with monkeypatch.context() as patched:
        patched.setattr(shards, "_write", full)
        output = run("train", recipe, *settings, code=2)
    assert "the checkpoint of step 8 cannot be written" in output
    assert "resumes from step 4" in output
    names = [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()]
    assert names == ["step-00000004"]
    run("train", recipe, *settings)
    run("train", recipe, "--run-dir", tmp_path / "whole")
    one, other = (
        tensors_of(tmp_path / name / "checkpoints/step-00000020") for name in ("run", "whole")
    )
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_checkpoints_are_listed_verified_and_pruned(recipe, tmp_path):
    directory = tmp_path / "run"
    settings = ["--set", "optimizer.learning_rate=1e-12", "--set", "evaluation.every=2"]
    run("train", recipe, "--run-dir", directory, *settings)
    listed = json.loads(run("checkpoints", "ls", directory, "--json"))
    steps = [one["step"] for one in listed]
    assert steps[-2:] == [16, 20]
    assert all(one["complete"] and one["processes"] == 1 for one in listed)
    (best,) = [one for one in listed if one["best"]]
    assert best["resumable"] == (best["step"] in steps[-2:])
    last = CheckpointStore(directory / "checkpoints").path(20)
    assert listed[-1]["bytes"] == bytes_in(last)
    assert listed[-1]["metrics"]["loss"] > 0
    lines = run("checkpoints", "ls", directory).splitlines()
    assert lines[0].split("|")[1].strip() == "checkpoint"
    assert len(lines) == 2 + len(steps)
    assert any(f"| {best['name']} (best) " in line for line in lines)

    assert run("checkpoints", "verify", directory).count("sound") == len(steps)
    file = last / "model-00001.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    output = run("checkpoints", "verify", directory, code=2)
    assert "model-00001.safetensors" in output
    assert (
        f"the run resumes from {CheckpointStore(directory / 'checkpoints').path(steps[-2])}"
        in output
    )
    file.write_bytes(content[:-1])
    listed = json.loads(run("checkpoints", "ls", directory, "--json"))
    assert listed[-1]["problem"] == "damaged: model-00001.safetensors"

    shutil.copytree(last, last.with_name(".staging-00000022-ab"))
    with claim(directory):
        assert "is training in" in run("checkpoints", "prune", directory, code=2)
    listed = json.loads(run("checkpoints", "ls", directory, "--json"))
    assert listed[-1]["problem"] == "unfinished"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    last.with_name("damaged-step-00000001").symlink_to(elsewhere)
    assert "kB freed" in run("checkpoints", "prune", directory, "--keep-last", 1)
    assert elsewhere.is_dir()
    listed = json.loads(run("checkpoints", "ls", directory, "--json"))
    assert {one["step"] for one in listed} == {best["step"], steps[-2]}


def test_a_run_whose_only_checkpoint_was_being_replaced_is_still_that_run(recipe, tmp_path):
    """The run was killed between two renames: another recipe must not take its place."""
    directory = tmp_path / "run"
    run("train", recipe, "--run-dir", directory, "--set", "checkpoint.keep_last=1")
    (directory / "status.json").unlink()
    (last,) = (one for one in (directory / "checkpoints").glob("*-00000020"))
    for one in (directory / "checkpoints").iterdir():
        if one != last:
            shutil.rmtree(one)
    last.rename(last.with_name(".replaced-00000020-abcd"))
    output = run("train", recipe, "--run-dir", directory, "--set", "seed=7", code=2)
    assert "belongs to a run of another recipe" in output
    assert last.is_dir()


@pytest.fixture
def slow_evaluation(reviews_recipe, write_recipe, monkeypatch) -> Path:
    """A recipe that evaluates after its third step, which takes seconds."""
    collate = Classification.collate

    def slowly(self, split, ids, epoch):
        time.sleep(0.2 if epoch == 0 else 0)
        return collate(self, split, ids, epoch)

    monkeypatch.setattr(Classification, "collate", slowly)
    reviews_recipe["batch"]["micro_batch_size"] = 1
    reviews_recipe["evaluation"] |= {"baseline": False, "every": 3}
    reviews_recipe["checkpoint"] |= {"every_steps": 100}
    reviews_recipe["tracking"]["log_every_steps"] = 1
    return write_recipe(reviews_recipe)


def ask_to_stop(file: Path, *, step: int, times: int, pid: int) -> threading.Thread:
    """Sends a process SIGUSR1 twice, half a second apart, once a step is logged."""

    def work() -> None:
        while not (file.is_file() and f'"step": {step}, ' in file.read_text()):
            time.sleep(0.01)
        for _ in range(times):
            time.sleep(0.5)
            os.kill(pid, signal.SIGUSR1)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_second_signal_in_an_evaluation_saves_nothing(slow_evaluation, tmp_path):
    """The signal ends the process, so that the run needs one of its own."""
    directory = tmp_path / "run"
    command = program("slow_evaluation", slow_evaluation, directory)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    asking = ask_to_stop(directory / "metrics.jsonl", step=3, times=2, pid=process.pid)
    assert process.wait(120) == 85
    asking.join()
    assert json.loads((directory / "status.json").read_text())["exit_code"] == 85
    assert list((directory / "checkpoints").iterdir()) == []


def test_a_time_limit_stops_a_run_with_a_checkpoint_and_it_resumes(recipe, tmp_path, monkeypatch):
    """The hour is over once the second epoch begins, and again after the first resumed step."""
    collate = Classification.collate

    def late(self, split, ids, epoch):
        if epoch >= 2:
            monkeypatch.setattr(stop_request, "MARGIN_SECONDS", 3600)
        return collate(self, split, ids, epoch)

    command = ["train", recipe, "--set", "schedule.epochs=400", "--run-dir", tmp_path / "run"]
    command += ["--time-limit", "1h"]
    monkeypatch.setattr(Classification, "collate", late)
    output = run(*command, code=85)
    monkeypatch.setattr(stop_request, "MARGIN_SECONDS", 0)
    assert "the same command resumes" in output
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("stopped", 85)
    assert status["step"] == CheckpointStore(tmp_path / "run" / "checkpoints").steps()[-1]
    output = run(*command, code=85)
    assert f"step-{status['step']:08d}" in output
    assert json.loads((tmp_path / "run" / "status.json").read_text())["step"] == status["step"] + 1


def test_pruning_removes_nothing_without_a_sound_checkpoint(recipe, tmp_path):
    directory = tmp_path / "run"
    run("train", recipe, "--run-dir", directory)
    for step in directory.glob("checkpoints/step-*"):
        (step / "state.json").unlink()
    assert "nothing was removed" in run("checkpoints", "prune", directory, code=2)
    assert list(directory.glob("checkpoints/step-*"))
    (directory / "status.json").unlink()
    output = run("train", recipe, "--run-dir", directory, code=2)
    assert f"remove {directory / 'checkpoints'} to start from scratch" in output


def test_a_run_that_does_not_fit_on_the_disk_is_refused(tmp_path):
    size, settings = CheckpointSize(weights=10**6, moments=2 * 10**6), Checkpoint(keep_last=2)
    known = {"num_epochs": 3, "model_bytes": 5 * 10**6}
    said = check_disk_space(tmp_path, size, settings, **known)
    assert said.startswith("checkpoints of 3 MB, 15 MB in all, ")
    every = settings.model_copy(update={"every_epoch": True})
    assert ", 18 MB in all" in check_disk_space(tmp_path, size, every, **known)
    free = shutil.disk_usage(tmp_path).free
    large = CheckpointSize(weights=free, moments=2 * free)
    with pytest.raises(CheckpointError, match=r"for 3 checkpoints of .* at a time") as caught:
        check_disk_space(tmp_path, large, settings, **known)
    assert (caught.value.key, caught.value.value) == ("checkpoint.keep_last", 2)


def test_existing_checkpoints_count_as_space_of_the_run(tmp_path, monkeypatch):
    there = tmp_path / "checkpoints" / "step-00000001"
    there.mkdir(parents=True)
    (there / "file").write_bytes(b"0" * 1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 2000))
    size = CheckpointSize(weights=500, moments=500)
    settings = Checkpoint(keep_last=1, keep_best=False)
    check_disk_space(tmp_path, size, settings, num_epochs=1, model_bytes=1000)
    with pytest.raises(CheckpointError):
        check_disk_space(tmp_path, size, settings, num_epochs=1, model_bytes=1001)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adamw_8bit"])
def test_the_estimate_is_the_size_on_the_disk(name, reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["model"]["architecture"] |= {"hidden_size": 96, "intermediate_size": 192}
    reviews_recipe["optimizer"]["name"] = name
    output = run("train", write_recipe(reviews_recipe), "--run-dir", tmp_path / "run")
    found = bytes_in(tmp_path / "run" / "checkpoints" / "step-00000020")
    said = output.partition("checkpoints of ")[2].partition(",")[0]
    amount, unit = said.split()
    estimate = float(amount) * {"kB": 1e3, "MB": 1e6}[unit]
    assert found == pytest.approx(estimate, rel=0.05), format_bytes(found)
