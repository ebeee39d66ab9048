"""`trainer doctor`: what it prints, how it ends, and that a broken subject does not end it."""

import json
import os
import shlex
import subprocess
import sys

import pytest
from support.command_line import invoke, run
from support.paths import ROOT

from trainer.doctor.examination import Examined, as_dict, will_fail
from trainer.doctor.finding import Finding, guarded
from trainer.errors import LaunchError

SUBJECTS = ["versions", "GPUs", "DeepSpeed", "communication", "CPU threads", "folders", "hub"]


def test_the_machine_is_examined_subject_by_subject():
    printed = run("doctor")
    headings = [line for line in printed.splitlines() if not line.startswith(" ")]
    assert headings == SUBJECTS
    levels = {line.split()[0] for line in printed.splitlines() if line.startswith(" ")}
    assert levels <= {"ok", "note", "warning"}


def test_a_recipe_is_examined_with_its_data(reviews_recipe, write_recipe):
    findings = json.loads(run("doctor", write_recipe(reviews_recipe), "--json"))
    assert findings["will_fail"] is False
    by_subject = {finding["subject"]: finding for finding in findings["findings"]}
    assert list(by_subject) == [*SUBJECTS, "what the recipe needs", "data", "launch", "plan"]
    keys = {"subject", "code", "level", "message", "advice", "figures"}
    assert all(finding.keys() == keys for finding in findings["findings"])


def test_the_plan_knows_the_lengths_of_data_that_the_doctor_prepares(
    reviews_recipe, write_recipe, tmp_path, monkeypatch
):
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))
    reviews_recipe["model"]["architecture"]["max_position_embeddings"] = 128
    reviews_recipe["batch"]["max_seq_length"] = 128
    found = json.loads(run("doctor", write_recipe(reviews_recipe), "--json"))["findings"]
    figures = {finding["code"]: finding for finding in found}
    longest = figures["lengths"]["figures"]["1"]
    assert longest < 128
    assert f"micro-batches of 8 x {longest} tokens" in figures["plan"]["message"]


def test_failures_are_counted_in_the_last_line_and_code_2(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "eth77")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "four")
    ended = invoke("doctor")
    assert ended.exit_code == 2
    assert ended.stdout.endswith("\n\n2 findings will make a run fail\n")
    assert "  FAILS    GLOO_SOCKET_IFNAME=eth77 names none of" in ended.stdout
    refused = "LOCAL_WORLD_SIZE=four is not a whole number from 1 to 1000000; unset it, or"
    assert f"  FAILS    {refused}" in ended.stdout
    findings = invoke("doctor", "--json")
    assert (findings.exit_code, json.loads(findings.stdout)["will_fail"]) == (2, True)


def test_what_is_no_recipe_is_one_sentence_and_code_2():
    for arguments in (["dmeo"], ["demo", "--set", "seed=x"], ["--set", "seed=1"]):
        refused = invoke("doctor", *arguments)
        assert refused.exit_code == 2
        assert refused.stdout == ""
        assert refused.stderr.startswith("trainer: ")


def test_an_error_becomes_a_finding_and_hides_nothing():
    def broken():
        yield Finding("whole", "fine", "this was looked at")
        raise ZeroDivisionError("in\na library")

    def refused():
        raise LaunchError("it will not start", key="RANK", hint="unset RANK")
        yield

    first, last = guarded(broken)
    assert (first.code, last.code, last.level) == ("whole", "not-examined", "warning")
    assert last.message == "could not be examined: ZeroDivisionError: in a library"
    (error,) = guarded(refused)
    assert (error.level, error.message, error.advice) == (
        "failure",
        "it will not start",
        "unset RANK",
    )
    assert not will_fail([Examined("a", (first, last))])
    assert as_dict([Examined("a", (first,)), Examined("b", (error,))])["will_fail"]


@pytest.mark.distributed
def test_without_home_network_and_caches(tmp_path):
    (tmp_path / "file").touch()
    nowhere = str(tmp_path / "file" / "home")
    environment = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("HF_", "TRAINER_", "XDG_"))
    }
    environment |= {
        "HOME": nowhere,
        "PYTHONPATH": str(ROOT),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-m", "trainer", "doctor", "demo", "--json"],
        env=environment,
        cwd="/proc",
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr  # the run could not write
    findings = {finding["code"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["unwritable-home-folder"]["level"] == "note"
    assert findings["unwritable-cache"]["level"] == "failure"
    assert findings["unwritable-run-directories"]["level"] == "warning"
    assert {"classes", "lengths", "padding"} <= findings.keys(), (
        "the data are examined all the same"
    )
    assert "not-examined" not in findings
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.distributed
def test_without_a_recipe_nothing_is_written(tmp_path):
    home, place = tmp_path / "home", tmp_path / "place"
    home.mkdir()
    place.mkdir()
    environment = {key: v for key, v in os.environ.items() if not key.startswith(("HF_", "TRAIN"))}
    environment |= {"HOME": str(home), "PYTHONPATH": str(ROOT), "TMPDIR": str(place)}
    command = [sys.executable, "-m", "trainer", "doctor"]
    done = subprocess.run(command, env=environment, cwd=place, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.distributed
def test_a_cache_on_a_read_only_disk_suffices_if_it_holds_everything(
    reviews_recipe, write_recipe, tmp_path
):
    caches, recipe = tmp_path / "caches", write_recipe(reviews_recipe)
    caches.mkdir()
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRAIN"))},
        "PYTHONPATH": str(ROOT),
        "TRAINER_CACHE": f"{caches}/trainer",
        "HF_HOME": f"{caches}/hub",
    }
    frozen = f"mount --bind {caches} {caches} && mount -o remount,ro,bind {caches} && exec "
    own_mounts = ["unshare", "--mount", "sh", "-c"]
    if subprocess.run([*own_mounts, f"{frozen} true"], capture_output=True).returncode:
        pytest.skip("this machine cannot mount a folder read-only")

    def examined(*settings, read_only):
        command = [sys.executable, "-m", "trainer", "doctor", str(recipe), "--json", *settings]
        if read_only:
            command = [*own_mounts, frozen + shlex.join(command)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        findings = json.loads(done.stdout)["findings"]
        return done.returncode, {finding["code"]: finding for finding in findings}

    code, findings = examined(read_only=False)
    assert code == 0
    code, findings = examined(read_only=True)
    assert code == 0
    assert findings["read-only-cache"]["level"] == "note"
    assert "its file system is read-only" in findings["read-only-cache"]["message"]
    code, findings = examined("--set", "batch.max_seq_length=16", read_only=True)
    assert code == 2
    assert findings["unwritable-cache"]["level"] == "failure"
    assert "lengths" in findings
