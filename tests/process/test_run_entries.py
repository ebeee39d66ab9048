"""What lies in a run directory is used only if it is the run's own, as it was written."""

import json
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.command_line import invoke

from trainer.checkpoints.record import fingerprint, read_record, verify, write_record
from trainer.checkpoints.store import CheckpointStore
from trainer.errors import CheckpointError, RunDirectoryError
from trainer.files.durable import write_text
from trainer.files.modes import follow_umask
from trainer.files.plain import is_changed, sealed
from trainer.process.run_directory import claim
from trainer.process.run_entries import FILES, FOLDERS, check_entries
from trainer.process.status import read_status
from trainer.recipe.training import Checkpoint
from trainer.state import TrainState
from trainer.tracking.metric_lines import known_lines, lines_at, read_lines, remembered


def publish(store: CheckpointStore, step: int, **state: Any) -> Path:
    folder = store.stage(step)
    for name in ("model-00001.safetensors", "optimizer-00001.safetensors"):
        (folder / name).write_bytes(b"some tensors")
    write_record(
        folder,
        state=TrainState(step=step, **state),
        ends_epoch=False,
        loss_scale=None,
        metrics={},
        facts={"order_digest": "", "launch": {}},
    )
    sums = {file.name: fingerprint(file) for file in folder.iterdir()}
    return store.publish(folder, step, sums)


def test_the_page_of_a_report_is_an_entry():
    assert {"report.html", "report.md"} <= {*FILES}


REMOVE = "remove it, or move it away"


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_a_link_in_a_run_directory_is_refused(tmp_path, name):
    (tmp_path / "run").mkdir()
    (tmp_path / "elsewhere").mkdir()
    check_entries(tmp_path / "run")
    (tmp_path / "run" / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunDirectoryError, match=f"is a link to {tmp_path / 'elsewhere'}") as caught:
        check_entries(tmp_path / "run")
    assert caught.value.key == str(tmp_path / "run" / name)


@pytest.mark.parametrize("name", [*FOLDERS, *FILES])
def test_an_entry_of_another_kind_is_refused(tmp_path, name):
    if name in FOLDERS:
        (tmp_path / name).write_text("")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(RunDirectoryError, match=f"{name} is not a (file|folder)") as caught:
        check_entries(tmp_path)
    assert (caught.value.key, caught.value.hint) == (str(tmp_path / name), REMOVE)
    (tmp_path / name).rename(tmp_path / "away")
    os.mkfifo(tmp_path / name)
    with pytest.raises(RunDirectoryError, match=f"{name} is not a (file|folder)") as caught:
        check_entries(tmp_path)
    assert (caught.value.key, caught.value.hint) == (str(tmp_path / name), REMOVE)


def test_pruning_leaves_what_a_link_leads_to(tmp_path):
    other, store = CheckpointStore(tmp_path / "other"), CheckpointStore(tmp_path / "mine")
    for step in (1, 2):
        publish(other, step)
    store.folder.mkdir()
    for step in (1, 2):
        store.path(step).symlink_to(other.path(step))
    publish(store, 3)
    store.prune(Checkpoint(keep_last=1), best_step=1)
    assert store.steps() == [1, 3]
    for step in (1, 2):
        verify(other.path(step), resumable=True)
    publish(store, 1)  # in the place of a link
    assert not store.path(1).is_symlink()
    verify(other.path(1), resumable=True)

    link = CheckpointStore(tmp_path / "link")
    link.folder.symlink_to(other.folder)
    assert link.newest()[0] == link.path(2)
    for change in (link.recover, lambda: link.prune(Checkpoint(keep_last=1), None)):
        with pytest.raises(CheckpointError, match="is a link to"):
            change()
    assert other.steps() == [1, 2]


def test_the_lock_and_written_files_do_not_follow_links(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("mine")
    run = tmp_path / "run"
    run.mkdir()
    for name in (".lock", ".status.json.staging"):
        (run / name).symlink_to(outside)
    with pytest.raises(RunDirectoryError, match="cannot be written") as caught, claim(run):
        pass
    assert caught.value.key == str(run)
    write_text(run / "status.json", "{}")
    assert outside.read_text() == "mine"
    assert read_status(run) == {}


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"[" * 200_000, b'{"a":'])
def test_an_invalid_status_is_read_as_empty(tmp_path, content):
    (tmp_path / "status.json").write_bytes(content)
    assert read_status(tmp_path) == {}


def edited(checkpoint: Path, **changes: Any) -> None:
    """Changes numbers of the state, and what the manifest says of them, without its seals."""
    record = json.loads((checkpoint / "state.json").read_text())
    record["state"] |= changes
    record.pop("checksum")
    (checkpoint / "state.json").write_text(json.dumps(record))
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"]["state.json"] = fingerprint(checkpoint / "state.json")
    manifest.pop("checksum")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"step": 9}, "of step 9"),
        ({"step": -5}, "state.step is -5"),
        ({"step": 10**30}, "state.step is 1000000"),
        ({"step": True}, "state.step is True"),
        ({"tokens": "x"}, "state.tokens is x"),
        ({"loss_sum": float("nan")}, "state.loss_sum is nan"),
        ({"best_step": 6, "best_value": 0.5}, "best_step is more than its step"),
        ({"best_step": 4}, "one of best_step and best_value"),
        ({"evaluated_step": 6}, "evaluated_step is more"),
        ({"other": 1}, "state.other is unknown"),
    ],
)
def test_numbers_that_no_run_wrote_are_refused(tmp_path, changes, reason):
    store = CheckpointStore(tmp_path)
    edited(publish(store, 5))
    verify(store.path(5))  # as an older version wrote it
    edited_again = publish(store, 5)
    edited(edited_again, **changes)
    with pytest.raises(CheckpointError, match=reason):
        verify(store.path(5))
    assert store.newest()[0] is None


def test_a_checkpoint_under_the_name_of_another_step_is_refused(tmp_path):
    store = CheckpointStore(tmp_path)
    publish(store, 5).rename(store.path(7))
    with pytest.raises(CheckpointError, match="it is of step 5"):
        read_record(store.path(7))


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "a/b", ".."])
def test_a_manifest_names_files_beside_it_only(tmp_path, name):
    checkpoint = publish(CheckpointStore(tmp_path), 5)
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["files"][name] = {"bytes": 1, "sha256": ""}
    manifest.pop("checksum")
    (checkpoint / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="is not a file in it"):
        verify(checkpoint)


def test_a_change_of_sealed_values_shows():
    values = sealed({"a": [1, 2.5, float("inf")], "b": {"c": None}})
    assert not is_changed(json.loads(json.dumps(values)))
    assert is_changed({**values, "b": {}})
    assert not is_changed({"a": 1})  # an older version's


# metrics.jsonl.


def line(step: int, split: str = "train") -> str:
    numbers = {"seconds": 0.1, "tokens_per_second": 1.0, "peak_memory_bytes": 1}
    return json.dumps({"step": step, "epoch": 0, "split": split, "train_loss": None, **numbers})


def test_lines_are_those_that_a_checkpoint_remembers(tmp_path):
    file = tmp_path / "metrics.jsonl"
    first = [line(0, "validation"), line(1), line(2)]
    file.write_text("".join(f"{text}\n" for text in first))
    memory, state = remembered(file), TrainState(step=2)
    assert memory["lines"] == 3
    with file.open("a") as opened:
        opened.write(f"{line(3)}\n" + line(4)[:20])
    assert [record["step"] for record in read_lines(file)] == [0, 1, 2, 3]
    assert lines_at(file, state, memory) == first == lines_at(file, state, {})
    assert len(known_lines(file, memory)) == 3
    for changed in (first[1:], [first[0], line(7), first[2]]):
        file.write_text("".join(f"{text}\n" for text in changed))
        with pytest.raises(RunDirectoryError, match="remove it to continue without"):
            lines_at(file, state, memory)
        assert known_lines(file, memory) == []


@pytest.mark.parametrize("wrong", ["{", "[]", '{"step": 1}', line(-1), line(10**30), "\ud800"])
def test_an_invalid_line_in_the_middle_is_named(tmp_path, wrong):
    file = tmp_path / "metrics.jsonl"
    text = f"{line(1)}\n{wrong}\n{line(2)}\n"
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    with pytest.raises(RunDirectoryError, match=r"line 2|cannot be read"):
        read_lines(file)


# Modes.


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o022, 0o644, 0o755), (0o027, 0o640, 0o750)])
def test_modes_follow_the_umask(tmp_path, mask, file, folder):
    before = os.umask(mask)
    try:
        inner = tmp_path / "made" / "inner"
        inner.mkdir(parents=True)
        (inner / "weights").write_text("")
        for path in (inner, inner / "weights", inner.parent):
            path.chmod(0o700 if path.is_dir() else 0o600)
        outside = tmp_path / "outside"
        outside.write_text("")
        outside.chmod(0o600)
        (inner / "link").symlink_to(outside)
        follow_umask(inner.parent)
        assert stat.S_IMODE((inner / "weights").stat().st_mode) == file
        assert {stat.S_IMODE(path.stat().st_mode) for path in (inner, inner.parent)} == {folder}
        assert stat.S_IMODE(outside.stat().st_mode) == 0o600
    finally:
        os.umask(before)


@contextmanager
def unprivileged(folder: Path) -> Generator[None]:
    """Context manager: acts as a user to whom file modes apply, which root is not."""
    if os.geteuid() != 0:
        yield
        return
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 65534, 65534)
    os.chmod(folder.parents[0], 0o755)  # noqa: PTH101
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("name", ["checkpoints", "config.yaml", "predictions", "metrics.jsonl"])
def test_what_may_not_be_read_or_written_is_a_sentence(reviews_recipe, write_recipe, name):
    import tempfile

    recipe = write_recipe(reviews_recipe)
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        store = CheckpointStore(run / "checkpoints")
        store.folder.mkdir(parents=True)
        publish(store, 5)
        (run / "predictions").mkdir()
        (run / "config.yaml").write_text(recipe.read_text())
        (run / "metrics.jsonl").write_text(line(5) + "\n")
        text = recipe.read_text()
        with unprivileged(run):
            (run / name).chmod(0)
            with pytest.raises(RunDirectoryError, match="cannot be read and written") as caught:
                check_entries(run)
            assert caught.value.key == str(run / name)
            if name == "checkpoints":
                with pytest.raises(CheckpointError, match="cannot be read"):
                    store.steps()
            (run / name).chmod(0o700)
        assert (run / "config.yaml").read_text() == text
        assert read_lines(run / "metrics.jsonl")


def test_without_its_recipe_a_run_is_not_started_again(tmp_path, reviews_recipe, write_recipe):
    run = tmp_path / "run"
    publish(CheckpointStore(run / "checkpoints"), 5)
    (run / "metrics.jsonl").write_text(line(5) + "\n")
    for content in (None, b"", b"[]", b"\xff", b"model: [", b"3"):
        if content is not None:
            (run / "config.yaml").write_bytes(content)
        ended = invoke("train", write_recipe(reviews_recipe), "--run-dir", run)
        assert ended.exit_code == 2, ended.output
        assert "config.yaml" in ended.output
        assert len(read_lines(run / "metrics.jsonl")) == 1
