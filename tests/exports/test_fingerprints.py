"""Fingerprints notice every change of a file that a model is read from."""

from pathlib import Path

from trainer.exports.fingerprints import changed_files, fingerprints


def exported(folder: Path) -> Path:
    (folder / "sub").mkdir()
    for name in ("config.json", "model.safetensors", "sub/chat.jinja"):
        (folder / name).write_text(name)
    return folder


def test_unchanged_files_have_the_same_fingerprints(tmp_path: Path) -> None:
    recorded = fingerprints(exported(tmp_path))
    assert recorded.keys() == {"config.json", "model.safetensors", "sub/chat.jinja"}
    assert recorded["config.json"]["bytes"] == len("config.json")
    assert changed_files(tmp_path, recorded) == []


def test_a_change_of_the_same_size_is_noticed(tmp_path: Path) -> None:
    recorded = fingerprints(exported(tmp_path))
    (tmp_path / "config.json").write_text("CONFIG.json")
    assert changed_files(tmp_path, recorded) == ["config.json"]


def test_removed_and_added_files_are_noticed(tmp_path: Path) -> None:
    recorded = fingerprints(exported(tmp_path))
    (tmp_path / "sub" / "chat.jinja").unlink()
    (tmp_path / "a.bin").write_text("new")
    assert changed_files(tmp_path, recorded) == ["a.bin", "sub/chat.jinja"]


def test_card_and_hidden_files_may_change(tmp_path: Path) -> None:
    recorded = fingerprints(exported(tmp_path))
    (tmp_path / "README.md").write_text("my words")
    (tmp_path / ".eval_results").mkdir()
    (tmp_path / ".eval_results" / "data.yaml").write_text("x")
    assert changed_files(tmp_path, recorded) == []
