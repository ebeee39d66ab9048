"""Folders, the hub and tokens: what can be written, fetched and used."""

import os
import subprocess
import sys
from pathlib import Path

from support.findings import by_code, levels

from trainer.doctor.hub import about_hub, about_offline, about_tokens
from trainer.doctor.storage import Place, about_storage, of_place


def place(folder):
    return Place("prepared data", folder, "set TRAINER_CACHE", "warning")


def test_a_folder_that_does_not_exist_yet_is_fine(tmp_path):
    finding = of_place(place(tmp_path / "a" / "b"))
    assert (finding.code, finding.level) == ("prepared-data", "fine")
    assert finding.figures["free"] > 0
    assert not list(tmp_path.iterdir())


def test_folders_that_cannot_be_written_are_named(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "cache", Path("/proc/cache")):
        finding = of_place(place(folder))
        assert (finding.code, finding.level) == ("unwritable-prepared-data", "warning")
        assert str(folder) in finding.message
        assert finding.advice == "set TRAINER_CACHE"


def test_each_folder_of_a_run_is_looked_at(monkeypatch, tmp_path, own_caches):
    monkeypatch.chdir(tmp_path)
    findings = by_code(about_storage())
    assert findings["run-directories"].figures["folder"] == str(tmp_path / "runs")
    assert findings["prepared-data"].figures["folder"] == str(own_caches / "trainer")
    assert {
        "files-of-the-hub",
        "rows-of-the-hub",
        "home-folder",
        "temporary-files",
    } <= findings.keys()
    monkeypatch.setenv("HOME", "/proc/nobody")
    assert levels(about_storage())["unwritable-home-folder"] == "note"


def test_little_space_is_a_warning(monkeypatch):
    from trainer.doctor import storage

    monkeypatch.setattr(storage, "LITTLE", 10**18)
    assert levels(about_storage())["little-space-prepared-data"] == "warning"
    assert "little-space-home-folder" not in levels(about_storage())


def test_the_offline_state_is_that_of_the_libraries():
    assert levels(about_hub())["offline"] == "note"  # as the tests set it
    (half,) = about_offline({"HF_DATASETS_OFFLINE": "1"}, hub=False, rows=True)
    assert (half.code, half.level) == ("half-offline", "warning")
    assert half.message.startswith("HF_DATASETS_OFFLINE=1: data sets are only read")
    assert levels(about_offline({}, hub=False, rows=False)) == {"online": "fine"}
    assert levels(about_offline({"SLURM_JOB_ID": "7"}, hub=False, rows=False)) == {"online": "note"}


def test_the_state_is_true_also_for_each_librarys_own_variable():
    script = "from trainer.doctor.offline import is_offline; print(is_offline())"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_HUB")}
    environment["HF_DATASETS_OFFLINE"] = "1"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout == "(False, True)\n", done.stderr


def test_tokens_are_found_and_never_shown(tmp_path):
    file, secret = tmp_path / "token", "hf_ThisIsASecret"
    for variables in ({}, {"HF_TOKEN": " \n"}):  # the library takes a blank one for none
        assert levels(about_tokens(variables, file)) == {"no-token": "note"}
    file.write_text(secret)
    everything = [
        *about_tokens({}, file),
        *about_tokens({"HF_TOKEN": secret, "WANDB_API_KEY": secret}, file),
        *about_tokens({"HF_TOKEN": f"{secret} {secret}"}, file),
    ]
    assert [finding.level for finding in everything] == ["fine", "fine", "fine", "failure"]
    assert everything[0].figures == {"from": str(file)}
    assert everything[1].figures == {"from": "HF_TOKEN"}
    assert secret not in str(everything)
