"""`push:` in a recipe: the model is sent at the end of its run, which it never makes fail."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import snapshot_download
from support.command_line import invoke, run
from support.launches import launch_command, run_to_its_end
from support.paths import ROOT
from support.scripted_hub import WRITES
from transformers import pipeline

import trainer
from trainer.assembly.miniature import smoke
from trainer.errors import ConfigError
from trainer.process.stop_request import SAME_SECONDS
from trainer.publishing.after_run import before_push, push_finished
from trainer.recipe.push import Push
from trainer.tasks.recipe import parse_recipe

NAME = "alice/demo"


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["schedule"] = {"name": "constant", "steps": 2}
    reviews_recipe["evaluation"]["every"] = 2
    reviews_recipe["push"] = {"repo_id": NAME}
    reviews_recipe["checkpoint"]["verify_export"] = True
    return write_recipe(reviews_recipe)


@pytest.mark.distributed
def test_a_finished_run_is_sent_once_and_can_be_loaded(hub, recipe, tmp_path):
    messages: list[str] = []

    def train(**overrides: Any) -> trainer.Result:
        return trainer.train(
            recipe,
            {key.replace("__", "."): value for key, value in overrides.items()},
            run_dir=tmp_path / "run",
            progress=lambda update: messages.append(update.message or ""),
        )

    result = train()
    assert result.state == "done"
    assert any(message.startswith("pushed: ") for message in messages)
    files = hub.repositories[NAME].files()
    assert hub.repositories[NAME].private
    assert result.model_dir is not None
    assert (result.model_dir / "model.safetensors").read_bytes() == files["model.safetensors"]
    assert json.loads(files["trainer.json"])["verified"] is True
    folder = snapshot_download(NAME, cache_dir=tmp_path / "cache")
    pipe: Any = pipeline("text-classification", model=folder)
    assert {answer["label"] for answer in pipe(["good", "bad"])} <= {"positive", "negative"}

    before = len(hub.requests)
    train()  # it is finished
    assert len(hub.requests) == before
    train(schedule__steps=4)  # the same recipe, trained longer
    assert len(hub.commits) == 2


@pytest.mark.distributed
def test_of_two_ranks_one_pushes_and_the_other_leaves(hub, recipe, tmp_path, monkeypatch):
    for name, value in hub.variables().items():
        monkeypatch.setenv(name, value)
    directory = tmp_path / "run"
    status = directory / "status.json"

    def is_complete() -> bool:
        return json.loads(status.read_text())["state"] == "done"

    hub.fail("POST /api/repos/create", 0, hold=is_complete)
    done = run_to_its_end(
        launch_command("train", str(recipe), "--run-dir", str(directory)), directory
    )
    assert done.code == 0, done.output
    assert done.output.count("\npushed: ") == 1, done.output
    assert len(hub.commits) == 1
    assert WRITES not in done.output


@pytest.mark.distributed
def test_two_interrupts_end_the_push_of_a_complete_run(hub, recipe, tmp_path):
    directory = tmp_path / "run"
    words = ["-m", "trainer", "train", str(recipe), "--run-dir", str(directory)]
    hub.fail("POST /lfs/.*/verify", 0, hold=lambda: False)
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **hub.variables(), "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    while not hub.uploads:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    time.sleep(SAME_SECONDS + 0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)  # the hub holds its answer for 30 seconds
    assert process.returncode == 0, output
    assert "Ctrl-C twice ends the push" in output
    assert json.loads((directory / "status.json").read_text())["state"] == "done"
    assert not hub.commits


def test_the_run_is_complete_before_it_is_pushed(hub, recipe, tmp_path):
    """The model is not verified, so that it is not pushed."""
    directory = tmp_path / "run"
    quick = ["--set", "checkpoint.verify_export=false"]
    done = invoke("train", recipe, "--run-dir", directory, *quick)
    assert done.exit_code == 0
    assert "note: checkpoint.verify_export is false: the model will not be pushed" in done.stdout
    assert "pushing to alice/demo; the run is complete" in done.stdout
    assert "warning: the model was not pushed: the run has not verified its model" in done.stdout
    status = json.loads((directory / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("done", 0)
    assert not hub.writes()
    run("push", directory, NAME, "--force")
    again = invoke("train", recipe, "--run-dir", directory, *quick, "--set", "push.private=false")
    assert "This run is finished" in again.stdout
    assert "push" not in again.stdout


def test_a_push_at_the_end_is_that_of_the_command(hub, pushable):
    messages: list[str] = []
    directory = pushable(adapters=True, export=True)
    settings = Push(repo_id=NAME, private=False, revision="v2", merge=True)
    push_finished(settings, directory, lambda update: messages.append(update.message or ""))
    assert messages[-1].startswith("pushed: ")
    repository = hub.repositories[NAME]
    assert not repository.private
    assert "model.safetensors" in repository.files("v2")


@pytest.mark.parametrize("why", ["offline", "no token", "refused", "defect"])
def test_a_push_that_fails_is_a_warning_with_the_command(hub, pushable, monkeypatch, why):
    notes: tuple[str, ...] = ()
    settings = Push(repo_id=NAME, merge=True, revision="v2")
    directory = pushable("a run", export=True)
    if why == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        notes = ("HF_HUB_OFFLINE is set: the model will not be pushed to alice/demo at the end",)
    elif why == "no token":
        monkeypatch.delenv("HF_TOKEN")
        notes = ("there is no valid token to push the model to alice/demo at the end",)
    elif why == "refused":
        hub.fail("POST /api/repos/create", 403, message="no")
    else:
        monkeypatch.setattr("trainer.publishing.after_run.push", lambda *_, **__: 1 / 0)
    found = list(before_push(settings, verifies=True))
    assert [note.split(": run")[0] for note in found] == list(notes)
    messages: list[str] = []
    push_finished(settings, directory, lambda update: messages.append(update.message or ""))
    warning, command = messages[-2:]
    assert warning.startswith("warning: the model was not pushed: ")
    assert len(warning) < 600
    place = shlex.quote(str(directory))
    assert command == f"to push it: trainer push {place} {NAME} --merge --revision v2"
    push_finished(settings, directory, None)  # nobody listens
    if why == "refused":
        hub.faults.clear()
        run(*shlex.split(command.partition("trainer ")[2]))
        assert len(hub.commits) == 1


def test_the_section_is_validated_with_the_recipe(reviews_recipe):
    for section, word in (
        ({"repo_id": "demo"}, "push.repo_id: 'demo' names no owner; write OWNER/demo"),
        ({"repo_id": NAME, "revision": "a b"}, "push.revision: 'a b' is not the name of a branch"),
        ({"repo_id": NAME, "token": "hf_x"}, "push.token: unknown key"),
        ({}, "push.repo_id: required"),
    ):
        with pytest.raises(ConfigError) as caught:
            parse_recipe({**reviews_recipe, "push": section}, "it")
        assert word in str(caught.value)


def test_a_run_in_miniature_is_never_sent(reviews_recipe):
    values = {**reviews_recipe, "push": {"repo_id": NAME}}
    assert smoke(parse_recipe(values, "it")).push is None


def test_a_sweep_must_not_push_every_run_to_one_place(recipe):
    for grid in (["--seeds", "1,2"], ["--vary", "push.revision=null,main"]):
        done = invoke("sweep", recipe, *grid, "--print")
        assert done.exit_code == 2
        assert "would push to the same branch of alice/demo" in done.stderr
        assert "--set push=null" in done.stderr
    for more in (["--set", "push=null"], ["--vary", "push.revision=a,b"]):
        seeds = ["--seeds", "1,2"] if "--set" in more else []
        assert invoke("sweep", recipe, *seeds, "--print", *more).exit_code == 0
