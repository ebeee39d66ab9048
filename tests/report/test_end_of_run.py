"""The end of a run: an export that is not the measured model does not become model/."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file
from support.command_line import invoke

from trainer.exports.gate import ExportError
from trainer.models.export import export_model
from trainer.report import staged_export

WRONG = "the head is missing: classifier.bias, classifier.weight"


def without_head(model: Any, tokenizer: Any, folder: Path, **settings: Any) -> None:
    export_model(model, tokenizer, folder, **settings)
    tensors = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if "classifier" not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_wrong_export_ends_the_run_with_code_1_and_everything_else_is_kept(
    reviews_recipe: dict[str, Any],
    write_recipe: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reviews_recipe["schedule"]["epochs"] = 1
    reviews_recipe["checkpoint"]["verify_export"] = True
    recipe, directory = write_recipe(reviews_recipe), tmp_path / "run"
    command = ("train", recipe, "--run-dir", directory)
    with monkeypatch.context() as patch:
        patch.setattr(staged_export, "export_model", without_head)
        ended = invoke(*command)
    assert ended.exit_code == 1
    assert isinstance(ended.exception, ExportError)
    sentence = str(ended.exception)
    assert sentence.startswith(f"the exported model is not the one that was measured: {WRONG}. ")
    assert sentence.endswith(str(directory / ".model.failed"))
    status = json.loads((directory / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert WRONG in status["message"]
    export = json.loads((directory / "results.json").read_text())["export"]
    assert (export["verified"], export["failed"], export["why_not"]) == (False, True, WRONG)
    assert f"- model/ was not replaced by the best step: {WRONG}" in (
        directory / "report.md"
    ).read_text("utf-8")
    assert not (directory / "model").exists()
    assert (directory / ".model.failed" / "config.json").is_file()
    assert len(list((directory / "checkpoints").iterdir())) == 2

    # The setting may differ in the same run, which then ends well.
    assert invoke(*command, "--set", "checkpoint.verify_export=false").exit_code == 0
    assert (directory / "model" / "model.safetensors").is_file()
    assert not (directory / ".model.failed").exists()
    export = json.loads((directory / "results.json").read_text())["export"]
    assert export["why_not"] == "checkpoint.verify_export is false"
    assert export["model"]["files"].keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    said = "not verified in a fresh process: checkpoint.verify_export is false"
    for name in ("report.md", "report.html"):
        assert said in (directory / name).read_text("utf-8")
