"""`push:` in a recipe: the model is sent at the end of its run, which it never makes fail."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import invoke, run

import trainer
from trainer.assembly.miniature import smoke
from trainer.errors import ConfigError
from trainer.tasks.recipe import parse_recipe

NAME = "alice/demo"


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    reviews_recipe["schedule"] = {"name": "constant", "steps": 2}
    reviews_recipe["evaluation"]["every"] = 2
    reviews_recipe["push"] = {"repo_id": NAME}
    return write_recipe(reviews_recipe)


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
    assert (
        model_dir(result).joinpath("model.safetensors").read_bytes() == files["model.safetensors"]
    )
    assert json.loads(files["trainer.json"])["step"] == 2

    before = len(hub.requests)
    train()  # it is finished
    assert len(hub.requests) == before
    train(schedule__steps=4)  # the same recipe, trained longer
    assert len(hub.commits) == 2
    assert json.loads(hub.repositories[NAME].files()["trainer.json"])["step"] in (2, 4)


def model_dir(result: trainer.Result) -> Path:
    assert result.model_dir is not None
    return result.model_dir


@pytest.mark.parametrize("why", ["offline", "no token", "refused", "defect"])
def test_a_push_that_fails_is_a_warning(hub, recipe, tmp_path, monkeypatch, why):
    directory = tmp_path / "run"
    note = None
    if why == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        note = "note: HF_HUB_OFFLINE is set: the model will not be pushed to alice/demo"
    elif why == "no token":
        monkeypatch.delenv("HF_TOKEN")
        note = "note: there is no valid token to push the model to alice/demo at the end"
    elif why == "refused":
        hub.fail("POST /api/repos/create", 403, message="no")
    else:
        monkeypatch.setattr("trainer.publishing.after_run.push", lambda *_, **__: 1 / 0)
    done = invoke("train", recipe, "--run-dir", directory)
    assert done.exit_code == 0
    assert "warning: the model was not pushed: " in done.stdout
    assert f"to push it: trainer push {directory} {NAME}" in done.stdout
    assert "HF_HUB_OFFLINE" in done.stdout or why != "offline"
    assert note is None or note in done.stdout
    status = json.loads((directory / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("done", 0)
    assert (directory / "results.json").is_file()
    if why == "refused":
        run("push", directory, NAME)
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
    done = invoke("sweep", recipe, "--seeds", "1,2", "--print")
    assert done.exit_code == 2
    assert "would push to the same branch of alice/demo" in done.stderr
    assert "--set push=null" in done.stderr
    for more in (["--set", "push=null"], ["--vary", "push.revision=a,b"]):
        seeds = ["--seeds", "1,2"] if "--set" in more else []
        assert invoke("sweep", recipe, *seeds, "--print", *more).exit_code == 0
