"""Pushes that fail: one sentence each, nothing half-written, and the same command continues."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from support.command_line import Ended, invoke, run
from support.hub_repositories import Repository
from support.paths import ROOT
from support.pushable_runs import weight_names
from support.scripted_hub import READS, WRITES

from trainer.publishing import hub_errors

NAME = "alice/demo"
COMMIT = "POST /api/models/.*/commit/"
HOSTILE = "<script>\x1b[31m\n" + "x" * 5000 + WRITES
"""What a server may answer; it repeats the token, too."""


def failed(*arguments: object) -> Ended:
    """Returns a push that failed: one sentence, code 2."""
    done = invoke("push", *arguments)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("trainer: ")
    assert done.stderr.count("\n") == 1
    assert len(done.stderr) < 520
    assert WRITES not in done.output
    assert "\x1b" not in done.output
    return done


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ("GET /api/models", 401, ["the hub refuses the token", "`hf auth login`, or set HF_TOKEN"]),
        ("POST /api/repos/create", 403, ["may not write to alice/demo", "write access to alice"]),
        ("POST /api/repos/create", 402, ["asks to be paid"]),
        ("POST /api/models/.*/preupload/", 403, ["may not write to alice/demo"]),
        ("POST .*/objects/batch", 413, ["refuses files of this size"]),
        ("PUT /lfs/", 403, ["may not write"]),
        (COMMIT, 409, ["was changed while this push was under way", "the same command again"]),
        (COMMIT, 412, ["was changed while this push was under way"]),
        (COMMIT, 413, ["refuses files of this size"]),
        (COMMIT, 400, ["refuses alice/demo with status 400"]),
    ],
)
def test_what_the_hub_refuses(hub, pushable, request_, status, words):
    hub.fail(request_, status, message="because I say so")
    done = failed(pushable(), NAME)
    for word in [*words, "(because I say so)"]:
        assert word in done.stderr
    assert not hub.commits


def test_a_token_that_only_reads(hub, pushable, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READS)
    done = failed(pushable(), NAME)
    assert "the token may not write to alice/demo" in done.stderr


@pytest.mark.parametrize(("token", "word"), [("hf_wrong", "refuses the token"), (None, "no token")])
def test_no_token_and_a_wrong_one_say_how_to_log_in(hub, pushable, monkeypatch, token, word):
    directory = pushable(export=True)
    if token is None:  # which is found before gigabytes are read
        (directory / "model" / "model.safetensors").unlink()
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    done = failed(directory, NAME)
    assert word in done.stderr
    assert "`hf auth login`" in done.stderr
    assert "HF_TOKEN" in done.stderr


def test_a_text_that_no_token_can_be_is_not_shown(hub, pushable, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_two words")
    done = invoke("push", pushable(), NAME, "--debug")
    assert done.exit_code == 2
    assert "the token of the hub holds a space" in done.stderr
    assert "two words" not in done.output


def test_an_owner_that_does_not_exist(hub, pushable):
    done = failed(pushable(), "nobody/demo")
    assert "does not find nobody/demo" in done.stderr
    assert "check that nobody exists" in done.stderr


def test_without_a_network(hub, pushable, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    done = failed(pushable(), NAME)
    assert "the hub at http://127.0.0.1:9 cannot be reached" in done.stderr
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "set HF_HUB_OFFLINE=0" in failed(pushable("other"), NAME).stderr


@pytest.mark.parametrize("status", [429, 503])
def test_a_hub_that_fails_for_the_moment_is_asked_again(hub, pushable, status):
    for request in ("GET /api/models", "POST /api/repos/create", COMMIT):
        hub.fail(request, status)
    run("push", pushable(), NAME)
    assert len(hub.commits) == 1


@pytest.mark.parametrize(
    ("status", "word"), [(429, "asks to wait"), (503, "fails with status 503")]
)
def test_a_hub_that_goes_on_failing(hub, pushable, status, word):
    hub.fail(COMMIT, status, times=9)
    done = failed(pushable(), NAME)
    assert word in done.stderr
    assert "the same command again: what the hub already has is not sent again" in done.stderr
    assert hub.requests.count(f"POST /api/models/{NAME}/commit/main") == 4


def test_a_commit_whose_answer_is_lost_is_not_made_twice(hub, pushable):
    hub.fail(COMMIT, 504, after=True)
    done = run("push", pushable(), NAME)
    assert f"/{NAME}/commit/{hub.repositories[NAME].branches['main']}" in done
    assert len(hub.commits) == 1


def test_an_upload_that_is_cut_is_sent_again(hub, pushable):
    hub.fail("PUT /lfs/", cut_after=1000)
    directory = pushable()
    run("push", directory, NAME)
    sent = hub.repositories[NAME].files()["model.safetensors"]
    assert sent == (directory / "model" / "model.safetensors").read_bytes()


def test_a_push_that_failed_half_way_sends_only_the_rest(hub, pushable):
    directory = pushable(shards=3)
    hub.fail("PUT /lfs/", 403, message="expired", hold=lambda: len(hub.uploads) == 2)
    failed(directory, NAME)
    files = hub.repositories[NAME].files()
    assert files.keys() == {".gitattributes"}  # nothing half-written
    assert len(hub.uploads) == 2
    done = run("push", directory, NAME)
    assert len(hub.uploads) == len(set(hub.uploads)) == 3
    assert "model-00001-of-00003.safetensors" in done
    assert hub.repositories[NAME].files().keys() >= {*weight_names(3)}


def test_somebody_else_commits_meanwhile(hub, pushable):
    hub.repositories[NAME] = repository = Repository(private=True)
    directory = pushable()
    uploaded = threading.Event()

    def commit() -> None:
        while not hub.uploads:
            time.sleep(0.001)
        repository.put("main", {**repository.files(), "notes.txt": b"mine"})
        uploaded.set()

    hub.fail("POST /lfs/.*/verify", 0, hold=uploaded.is_set)
    other = threading.Thread(target=commit)
    other.start()
    done = failed(directory, NAME)
    other.join()
    assert "was changed while this push was under way (A commit has happened since" in done.stderr
    assert repository.files().keys() == {".gitattributes", "notes.txt"}
    run("push", directory, NAME)
    assert repository.files()["notes.txt"] == b"mine"


def test_a_repository_of_others_that_appears_meanwhile(hub, pushable):
    other = Repository(private=False)
    other.put("main", {"model.safetensors": b"theirs"})

    class Appearing(dict[str, Repository]):
        def get(self, name: str, default: Any = None) -> Any:
            if any(request == "POST /api/repos/create" for request in hub.requests):
                return other
            return default

    hub.repositories = Appearing()
    assert "was created while this push was under way" in failed(pushable(), NAME).stderr
    assert other.files() == {"model.safetensors": b"theirs"}


def test_what_a_server_says_is_cut_and_harmless(hub, pushable):
    hub.fail("GET /api/models", 418, message=HOSTILE)
    done = failed(pushable(), NAME)
    assert "<script>" in done.stderr
    assert "characters)" in done.stderr


def test_names_in_a_repository_are_harmless(hub, pushable):
    hub.repositories[NAME] = Repository(private=True)
    hub.repositories[NAME].put("main", {"model-\x1b[31m.bin": b"x", "model.x.bin": b"y"})
    done = invoke("push", pushable(), NAME)
    assert "\x1b" not in done.output


def test_a_file_with_the_token_is_not_sent(hub, pushable):
    directory = pushable()
    (directory / "model" / "notes.txt").write_text(f"x = {WRITES}")
    done = failed(directory, NAME)
    assert "notes.txt holds the token of the hub, and was not sent" in done.stderr
    assert not hub.repositories


def test_only_defects_are_no_sentence():
    assert hub_errors.as_hub_error(KeyError("x"), NAME, "http://hub", None) is None
    assert hub_errors.as_hub_error(AssertionError(), NAME, "http://hub", None) is None


def in_a_process(hub: Any, *arguments: object, **variables: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "push", *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, **hub.variables(), "PYTHONPATH": str(ROOT), **variables},
    )  # fmt: skip


def test_a_real_process_is_interrupted_and_never_shows_the_token(hub, pushable, tmp_path):
    directory = pushable(shards=2)
    hub.fail("POST /lfs/.*/verify", 0, hold=lambda: False)
    process = in_a_process(hub, directory, NAME, "--debug")
    while len(hub.uploads) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130, output
    assert "the same command sends only what the hub does not have" in output
    assert hub.repositories[NAME].files().keys() == {".gitattributes"}

    hub.faults.clear()
    hub.fail(COMMIT, 400, message=f"no, {WRITES}")
    process = in_a_process(hub, directory, NAME, "--debug", HF_DEBUG="1")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "HubError" in output
    assert "Traceback" in output
    assert len(hub.uploads) == 2  # nothing twice
    for text in (output, *texts_below(directory)):
        assert WRITES not in text


def texts_below(folder: Path) -> list[str]:
    return [
        file.read_text("utf-8", errors="replace") for file in folder.rglob("*") if file.is_file()
    ]
