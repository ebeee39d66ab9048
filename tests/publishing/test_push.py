"""`trainer push`: what arrives at the hub is what it said it would send, in one commit."""

import json
import os
import re
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from support.command_line import invoke, run
from support.hub_repositories import Repository
from support.pushable_runs import weight_names

import trainer
from trainer.cli.push import command
from trainer.errors import LaunchError, RunDirectoryError
from trainer.tasks.recipe import load_recipe

NAME = "alice/demo"
ALWAYS = {"README.md", "recipe.yaml", "results.json", "trainer.json"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}


def listed(output: str) -> dict[str, int]:
    """Returns the files that a plan lists, with their sizes."""
    found = re.findall(r"^  (\S+) +([\d,]+) bytes$", output, re.MULTILINE)
    return {path: int(size.replace(",", "")) for path, size in found}


def plan_of(output: str) -> str:
    """Returns the plan alone, without what a push or a dry run adds."""
    return re.split(r"^(?:sending|nothing|pushed)", output, flags=re.MULTILINE)[0]


def test_a_new_repository_is_private_and_gets_what_the_dry_run_lists(hub, pushable):
    directory = pushable(export=True)
    dry = run("push", directory, NAME, "--dry-run")
    assert not hub.writes()
    assert not hub.repositories

    done = run("push", directory, NAME)
    assert plan_of(done) == plan_of(dry)
    files = hub.repositories[NAME].files()
    assert listed(done) == {p: len(c) for p, c in files.items() if p != ".gitattributes"}
    assert listed(done).keys() == hub.received()
    assert hub.received() == ALWAYS | TOKENIZER | {"config.json", "model.safetensors"}
    assert hub.repositories[NAME].private
    assert "to alice/demo (new, private), branch main" in done
    assert len(hub.commits) == 1
    assert files["model.safetensors"] == (directory / "model" / "model.safetensors").read_bytes()
    assert done.splitlines()[-1] == f"pushed: {hub.address}/{NAME}/commit/{head(hub)}"


def head(hub, branch="main") -> str:
    return hub.repositories[NAME].branches[branch]


def test_a_dry_run_needs_no_token_and_says_what_it_cannot_see(hub, pushable, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    directory = pushable()
    text = run("push", directory, NAME, "--dry-run")
    assert "because there is no token" in text
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert "because HF_HUB_OFFLINE is set" in run("push", directory, NAME, "--dry-run")
    assert not hub.requests


def test_a_dry_run_without_a_network_shows_what_it_knows(hub, pushable, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    output = run("push", pushable(), NAME, "--dry-run")
    assert "model.safetensors" in listed(output)
    assert "because the hub does not answer" in output
    assert output.endswith("nothing was sent (--dry-run)\n")


def test_public_is_a_wish_of_its_own(hub, pushable):
    assert "(new, public)" in run("push", pushable(), NAME, "--public")
    assert not hub.repositories[NAME].private


@pytest.mark.parametrize("private", [True, False])
def test_a_repository_keeps_its_visibility(hub, pushable, private):
    hub.repositories[NAME] = Repository(private)
    done = run("push", pushable(), NAME)
    assert f"({'private' if private else 'public'}), branch main" in done
    assert hub.repositories[NAME].private is private


def test_a_public_repository_is_refused_if_it_must_be_private(hub, pushable):
    hub.repositories[NAME] = Repository(private=False)
    assert "alice/demo is public" in run("push", pushable(), NAME, "--private", code=2)
    assert not hub.writes()


def test_the_same_push_again_sends_nothing(hub, pushable):
    directory = pushable()
    run("push", directory, NAME)
    before = hub.writes()
    done = run("push", directory, NAME)
    assert "to send: 0 files, 0 bytes" in done
    assert "alice/demo already holds this model" in done
    assert hub.writes() == before


def test_only_what_changed_is_sent(hub, pushable):
    directory = pushable()
    run("push", directory, NAME)
    card = directory / "model" / "README.md"
    card.write_text(card.read_text() + "\nOne more sentence.\n")
    done = run("push", directory, NAME)
    assert listed(done).keys() == {"README.md"}
    assert "model.safetensors" in re.findall("already there: (.*)", done)[0]
    assert [line["key"] for line in hub.commits[-1]] == ["header", "file"]
    assert b"One more sentence." in hub.repositories[NAME].files()["README.md"]


def test_stale_weights_go_and_files_of_others_stay(hub, pushable):
    run("push", pushable("first", shards=3), NAME)
    repository = hub.repositories[NAME]
    repository.put("main", {**repository.files(), "LICENSE": b"mine", "onnx/model.onnx": b"mine"})
    directory = pushable("second", shards=2)
    dry = run("push", directory, NAME, "--dry-run")
    done = run("push", directory, NAME)
    assert plan_of(done) == plan_of(dry)
    assert re.findall("to remove there: (.*)", done) == [", ".join(weight_names(3))]
    kept = {path for path in repository.files() if "safetensors" in path}
    assert kept == {*weight_names(2), "model.safetensors.index.json"}
    assert repository.files()["LICENSE"] == repository.files()["onnx/model.onnx"] == b"mine"
    assert len(hub.commits) == 2


def test_weights_in_another_format_go_too(hub, pushable):
    hub.repositories[NAME] = Repository(private=True)
    hub.repositories[NAME].put("main", {"pytorch_model.bin": b"x", "notes.txt": b"mine"})
    directory = pushable()
    output = run("push", directory, NAME, code=2)
    assert "holds a model that no push has sent (pytorch_model.bin)" in output
    assert not hub.writes()
    run("push", directory, NAME, "--force")
    assert "pytorch_model.bin" not in hub.repositories[NAME].files()
    assert "notes.txt" in hub.repositories[NAME].files()


def test_a_gitignore_leaves_nothing_out(hub, pushable):
    hub.repositories[NAME] = Repository(private=True)
    hub.repositories[NAME].put("main", {".gitignore": b"*"})
    done = run("push", pushable(), NAME)
    assert listed(done).keys() == hub.received()


def test_another_recipe_needs_force(hub, pushable):
    run("push", pushable("first"), NAME)
    before = head(hub)
    other = pushable("second", seed=7)
    output = run("push", other, NAME, code=2)
    assert "alice/demo holds the model of another recipe" in output
    assert "--force" in output
    assert run("push", other, NAME, "--dry-run", code=2)
    assert head(hub) == before
    run("push", other, NAME, "--force")
    assert head(hub) != before


def test_another_recipe_on_a_new_branch_needs_no_force(hub, pushable):
    run("push", pushable("first", shards=2), NAME)
    before = head(hub)
    run("push", pushable("second", seed=7), NAME, "--revision", "v2")
    assert head(hub) == before
    assert not hub.repositories[NAME].files("v2").keys() & {*weight_names(2)}
    output = run("push", pushable("third", seed=8), NAME, "--revision", "v2", code=2)
    assert "holds the model of another recipe" in output


def test_the_same_recipe_trained_longer_needs_no_force(hub, pushable):
    run("push", pushable("first"), NAME)
    schedule = load_recipe("demo").schedule.model_dump() | {"epochs": 99}
    longer = pushable("second", schedule=schedule, weights=2)
    run("push", longer, NAME)


@pytest.mark.parametrize("content", [b"[]", b'{"recipe": 1}', b"\xff", b"x" * 2**21])
def test_a_record_that_cannot_be_read_is_not_ours(hub, pushable, content):
    run("push", pushable("first"), NAME)
    repository = hub.repositories[NAME]
    repository.put("main", {**repository.files(), "trainer.json": content})
    output = run("push", pushable("second", weights=2), NAME, code=2)
    assert "holds a model that no push has sent" in output


def test_a_branch_is_created_and_main_stays(hub, pushable):
    run("push", pushable("first"), NAME)
    before = head(hub)
    done = run("push", pushable("second", weights=2), NAME, "--revision", "v2")
    assert "branch v2 (new, from main)" in done
    assert head(hub) == before
    assert head(hub, "v2") != before
    assert run("push", pushable("third", weights=3), NAME, "--revision", "v2")


def test_a_branch_of_a_new_repository(hub, pushable):
    run("push", pushable(), NAME, "--revision", "v2")
    assert "model.safetensors" in hub.repositories[NAME].files("v2")
    assert hub.repositories[NAME].files("main").keys() == {".gitattributes"}


def test_adapters_go_alone_unless_merged(hub, pushable):
    directory = pushable(adapters=True, export=True)
    done = run("push", directory, NAME)
    assert done.startswith("adapter of run, step ")
    expected = ALWAYS | TOKENIZER | {"adapter_config.json", "adapter_model.safetensors"}
    assert hub.received() == expected
    merged = run("push", directory, NAME, "--merge")
    assert merged.startswith("model of run, step ")
    assert re.findall("to remove there: (.*)", merged) == [
        "adapter_config.json, adapter_model.safetensors"
    ]
    files = hub.repositories[NAME].files().keys() - {".gitattributes"}
    assert files == ALWAYS | TOKENIZER | {"config.json", "model.safetensors"}


def test_adapters_of_random_weights_are_of_no_use_alone(hub, pushable):
    model = {"name_or_path": "some/bert", "initialization": "random"}
    directory = pushable(adapters=True, model=model)
    assert "send the whole model with --merge" in run("push", directory, NAME, code=2)
    run("push", directory, NAME, "--merge")


def test_large_files_go_in_parts_if_the_hub_asks_for_it(hub, pushable):
    hub.part_bytes = 70_000
    directory = pushable(shards=2)
    run("push", directory, NAME)
    assert {len(parts) for parts in hub.parts.values()} == {5}
    for name in weight_names(2):
        assert hub.repositories[NAME].files()[name] == (directory / "model" / name).read_bytes()


def test_a_model_that_the_run_did_not_verify_needs_force(hub, pushable):
    directory = pushable(export=False)
    output = run("push", directory, NAME, code=2)
    assert "has not verified its model: checkpoint.verify_export is false" in output
    run("push", directory, NAME, "--force")
    assert json.loads(hub.repositories[NAME].files()["trainer.json"])["verified"] is False


def test_an_older_run_is_pushed_with_a_note(hub, pushable):
    assert "note: the run does not say whether its model was verified" in run(
        "push", pushable(), NAME
    )


@pytest.mark.parametrize("part", ["model", "adapter"])
def test_files_that_changed_since_they_were_verified_are_refused(hub, pushable, part):
    directory = pushable(adapters=True, export=True)
    file = next((directory / part).glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    merge = ["--merge"] * (part == "model")
    output = run("push", directory, NAME, "--force", *merge, code=2)
    assert f"is not as the run verified it: {file.name} changed since" in output
    assert not hub.requests


@pytest.mark.parametrize("state", ["stopped", "running", "failed"])
def test_a_run_that_is_not_done_has_nothing_to_push(hub, pushable, state):
    directory = pushable()
    (directory / "status.json").write_text(json.dumps({"state": state}))
    (directory / "results.json").unlink()  # it is written at the end
    assert f"the run is {state}; train it to its end" in run("push", directory, NAME, code=2)


def test_a_directory_without_a_run_or_a_model(hub, pushable, tmp_path):
    assert "holds no run" in run("push", tmp_path / "nothing", NAME, code=2)
    directory = pushable()
    (directory / "model").rename(tmp_path / "elsewhere")
    assert "has no model/" in run("push", directory, NAME, code=2)


def test_python_returns_the_address_and_prints_nothing(hub, pushable, capfd):
    messages: list[str] = []
    directory = pushable()
    address = trainer.push(
        directory, NAME, progress=lambda update: messages.append(update.message or "")
    )
    assert address == f"{hub.address}/{NAME}/commit/{head(hub)}"
    assert messages[-1] == f"pushed: {address}"
    assert trainer.push(directory, NAME, progress=None) == f"{hub.address}/{NAME}"
    assert capfd.readouterr() == ("", "")
    with pytest.raises(RunDirectoryError) as caught:
        trainer.push(directory / "none", NAME, progress=None)
    assert caught.value.key == str(directory / "none")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("demo", "OWNER/demo"),
        ("https://huggingface.co/alice/demo", "alice/demo"),
        ("alice/my model", "alice/my-model"),
        ("alice/\x1b[31m", "alice/31m"),
        ("", "OWNER/NAME in letters"),
    ],
)
def test_a_bad_name_is_refused_with_the_nearest(hub, pushable, name, near):
    done = invoke("push", pushable(), name)
    assert done.exit_code == 2
    assert f"; write {near}" in done.stderr
    assert "\x1b" not in done.stderr
    assert not hub.requests


@pytest.mark.parametrize("branch", ["a b", "refs/pr/1", "0" * 40, "x..y", "-x", "\x1b[31m"])
def test_what_is_no_branch_is_refused(hub, pushable, branch):
    done = invoke("push", pushable(), NAME, f"--revision={branch}")
    assert done.exit_code == 2
    assert "write the name of a branch" in done.stderr
    assert "\x1b" not in done.stderr


def test_several_ranks_do_not_push(hub, pushable, monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    for name, value in {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    work = command.callback
    assert work is not None
    options = {"private": None, "revision": None, "merge": False, "force": False, "dry_run": False}
    with pytest.raises(LaunchError, match="one process; start it without a launcher"):
        work(pushable(), NAME, **options)
    assert not hub.requests


def test_a_pipe_in_the_folder_is_no_file_to_send(hub, pushable):
    directory = pushable()
    os.mkfifo(directory / "model" / "pipe")
    assert "cannot be read" in run("push", directory, NAME, code=2)


def test_a_pushed_folder_is_what_was_exported(hub, pushable, tmp_path):
    directory = pushable(shards=2)
    run("push", directory, NAME)
    folder = Path(snapshot_download(NAME, cache_dir=tmp_path / "cache"))
    for file in (*weight_names(2), "tokenizer.json"):
        assert (folder / file).read_bytes() == (directory / "model" / file).read_bytes()
