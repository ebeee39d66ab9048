"""trainer export: what appears in the new folder, and what is refused with nothing written."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.command_line import invoke, run
from support.launches import tensors_of
from support.task_cases import CASES
from transformers import AutoModelForSequenceClassification

import trainer
from trainer.errors import ConfigError, FileError, LaunchError
from trainer.exports.fingerprints import changed_files
from trainer.exports.gate import ExportError
from trainer.models.export import convert, export_model
from trainer.publishing import export
from trainer.publishing.destination import staged

STEPS = {
    "schedule": {"steps": 6},
    "evaluation": {"every": 2},
    "checkpoint": {"every_steps": 2, "keep_last": 9, "verify_export": False},
}


def trained(directory: Path, base: Path, mode: str) -> Path:
    values = CASES["classification"].recipe()
    values["model"] = {"name_or_path": str(base)}
    trainer.train(
        trainer.Recipe(**{**values, **STEPS, "tuning": {"mode": mode}}),
        run_dir=directory,
        progress=None,
    )
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of all weights and a run of adapters, of which no test changes the directory."""
    root = tmp_path_factory.mktemp("runs")
    values = CASES["classification"].recipe()
    first = trainer.train(
        trainer.Recipe(**{**values, **STEPS}), run_dir=root / "full", progress=None
    )
    assert first.model_dir is not None
    return {"full": root / "full", "lora": trained(root / "lora", first.model_dir, "lora")}


def verifying(directory: Path, place: Path) -> Path:
    """Returns a copy of a run that verifies its exports."""
    copied = shutil.copytree(directory, place)
    text = (copied / "config.yaml").read_text()
    (copied / "config.yaml").write_text(text.replace("verify_export: false", "verify_export: true"))
    return copied


def test_adapters_are_merged_and_verified(runs: dict[str, Path], tmp_path: Path) -> None:
    directory = verifying(runs["lora"], tmp_path / "lora")
    dest = tmp_path / "new" / "merged"
    said = run("export", directory, dest, "--merge", "--checkpoint", "last", "--shard-size", "40KB")
    record = json.loads((dest / "export.json").read_text())
    assert (record["run"], record["step"], record["merged"]) == ("lora", 6, True)
    assert record["verified"]
    assert record["model"]["difference"] <= record["model"]["bound"] == 1e-4
    assert said.splitlines()[1].startswith("a fresh process gives the logits of the run: largest")
    assert changed_files(dest, record["model"]["files"]) == []
    assert len(list(dest.glob("model-0000?-of-0000?.safetensors"))) > 1
    assert sorted(path.name for path in dest.parent.iterdir()) == ["merged"]
    card = (dest / "README.md").read_text()
    assert "Exported from the checkpoint of step 6 of 6." in card
    assert "answers = classifier(texts, truncation=True, max_length=64, top_k=None)" in card


def test_adapters_alone_come_with_their_tokenizer(runs: dict[str, Path], tmp_path: Path) -> None:
    dest = trainer.load(runs["lora"]).export(tmp_path / "adapter", checkpoint=2)
    names = {path.name for path in dest.iterdir()}
    assert names == {
        *("README.md", "adapter_config.json", "adapter_model.safetensors", "export.json"),
        *("tokenizer.json", "tokenizer_config.json"),
    }
    stored = load_file(dest / "adapter_model.safetensors")
    saved = tensors_of(runs["lora"] / "checkpoints" / "step-00000002")
    adapters = {name: tensor for name, tensor in stored.items() if ".lora_" in name}
    card = (dest / "README.md").read_text()
    assert "Exported from the checkpoint of step 2 of 6." in card
    assert "Measured after step 2 on" in card
    assert len(adapters) > 4
    for name, tensor in adapters.items():
        assert torch.equal(tensor, saved[name.replace(".weight", ".default.weight")]), name


def test_adapters_of_random_weights_are_not_called_verified(tmp_path: Path) -> None:
    values = {**CASES["classification"].recipe(), **STEPS, "tuning": {"mode": "lora"}}
    trainer.train(trainer.Recipe(**values), run_dir=tmp_path / "made", progress=None)
    directory = verifying(tmp_path / "made", tmp_path / "run")
    said = run("export", directory, tmp_path / "dest")
    record = json.loads((tmp_path / "dest" / "export.json").read_text())
    assert (record["verified"], record["failed"]) == (False, False)
    assert said.splitlines()[1] == f"not verified in a fresh process: {record['why_not']}"
    assert record["why_not"].startswith("only the run itself has the random weights")
    card = (tmp_path / "dest" / "README.md").read_text()
    assert "random weights of their own run. The tokenizer is in this folder, too." in card
    assert "`model/`" not in card


@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_weights_are_converted(runs: dict[str, Path], tmp_path: Path, dtype: str) -> None:
    run("export", runs["full"], tmp_path / "half", "--dtype", dtype, "--checkpoint", "2")
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in model.parameters()} == {wanted}
    saved = tensors_of(runs["full"] / "checkpoints" / "step-00000002")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, saved[name].to(wanted)), name
    card = (tmp_path / "half" / "README.md").read_text()
    assert f"The weights were converted to {str(wanted)[6:]}." in card


def test_the_card_of_another_step_has_its_metrics(runs: dict[str, Path], tmp_path: Path) -> None:
    results = json.loads((runs["full"] / "results.json").read_text())
    other = min({2, 4} - {results["best"]["step"]})
    run("export", runs["full"], tmp_path / "other", "--checkpoint", other)
    lines = (runs["full"] / "metrics.jsonl").read_text().splitlines()
    (measured,) = [
        line
        for line in map(json.loads, lines)
        if line["split"] == "validation" and line["step"] == other
    ]
    card = (tmp_path / "other" / "README.md").read_text()
    assert f"| accuracy | {measured['accuracy']:.4f} |" in card
    assert f"Measured after step {other} on" in card


REFUSED: list[tuple[str, list[str], str]] = [
    ("full", ["--checkpoint", "3"], "--checkpoint 3: the run keeps the steps 2, 4, 6"),
    ("full", ["--checkpoint", "worst"], "--checkpoint worst: the run keeps the steps 2, 4, 6"),
    ("full", ["--dtype", "int4"], "--dtype: 'int4' is not one of bf16, fp16, fp32"),
    (
        "full",
        ["--shard-size", "2 gigs"],
        "--shard-size: '2 gigs' is not a size; write a whole number and a unit, such as 500MB or "
        "2GB",
    ),
    ("full", ["--gguf"], "--gguf: a BertForSequenceClassification cannot be written, only causal"),
    ("lora", ["--dtype", "bf16"], "--dtype is for a whole model, and adapters alone are exported"),
    ("lora", ["--onnx"], "--onnx is for a whole model, and adapters alone are exported; add --mer"),
]


@pytest.mark.parametrize(("mode", "options", "sentence"), REFUSED)
def test_bad_options_leave_nothing_behind(
    mode: str, options: list[str], sentence: str, runs: dict[str, Path], tmp_path: Path
) -> None:
    ended = invoke("export", runs[mode], tmp_path / "above" / "dest", *options)
    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"trainer: {sentence}")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_export_leaves_nothing_behind(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_head(model: Any, tokenizer: Any, folder: Path, **settings: Any) -> None:
        export_model(model, tokenizer, folder, **settings)
        tensors = load_file(folder / "model.safetensors")
        kept = {name: tensor for name, tensor in tensors.items() if "classifier" not in name}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    directory = verifying(runs["full"], tmp_path / "run")
    monkeypatch.setattr(export, "export_model", without_head)
    with pytest.raises(ExportError, match="is not the model of the run: the head is missing: cla"):
        trainer.load(directory).export(tmp_path / "above" / "dest")
    assert list(tmp_path.iterdir()) == [directory]


def test_a_destination_that_is_taken_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    (tmp_path / "to_empty").symlink_to(tmp_path / "empty")
    taken: list[tuple[Path, Callable[[Path], str]]] = [
        (tmp_path / "full", lambda dest: f"{dest} exists already"),
        (tmp_path / "file", lambda dest: f"{dest} is not a folder"),
        (tmp_path / "link", lambda dest: f"{dest} is not a folder"),
        (tmp_path / "to_empty", lambda dest: f"{dest} exists already"),
        (tmp_path / "new" / "..", lambda dest: f"{dest} exists already"),
        (runs["full"] / "model" / "x", lambda dest: f"{dest} lies in model/ of the run, which the"),
        (runs["full"] / "checkpoints", lambda dest: f"{dest} lies in checkpoints/ of the run"),
    ]
    for dest, sentence in taken:
        ended = invoke("export", runs["full"], dest)
        assert ended.exit_code == 2
        assert ended.stderr.startswith(f"trainer: DEST: {sentence(dest)}")
    assert (tmp_path / "full" / "mine").read_text() == "precious"
    assert (tmp_path / "file").read_text() == "precious"


def test_an_empty_folder_is_filled(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    run("export", runs["full"], tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").is_file()


def test_what_appears_in_the_destination_meanwhile_is_kept(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    dest.mkdir()

    def fill_both() -> None:
        with staged(dest) as folder:
            (folder / "model").write_text("new")
            (dest / "mine").write_text("precious")

    with pytest.raises(FileError) as caught:
        fill_both()
    assert str(caught.value).startswith(f"{dest}: Directory not empty; something else is in its")
    assert [path.name for path in tmp_path.rglob("*")] == ["dest", "mine"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    ended = invoke("export", runs["full"], tmp_path / "dest")
    tmp_path.chmod(0o700)
    assert ended.exit_code == 2
    assert "Permission denied" in ended.stderr


def test_a_path_through_a_file_is_refused(runs: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    ended = invoke("export", runs["full"], tmp_path / "file" / "dest")
    assert ended.exit_code == 2
    assert ended.stderr.startswith(f"trainer: {tmp_path / 'file'}")
    assert len(ended.stderr.splitlines()) == 1


def test_several_ranks_are_refused(
    runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(LaunchError, match="an export is made by one process, and 2 were launched"):
        trainer.load(runs["full"]).export(tmp_path / "dest")
    assert list(tmp_path.iterdir()) == []


def test_a_weight_beyond_fp16_is_refused(runs: dict[str, Path]) -> None:
    model: Any = AutoModelForSequenceClassification.from_pretrained(runs["full"] / "model")
    with torch.no_grad():
        model.classifier.weight[0, 0] = 1e5
    with pytest.raises(ConfigError) as caught:
        convert(model, torch.float16)
    assert str(caught.value) == (
        "--dtype: the weight classifier.weight holds 1e+05, and float16 ends at 65504; use bf16 or "
        "fp32"
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    convert(model, torch.bfloat16)


def test_a_run_without_its_data_says_so(tmp_path: Path, runs: dict[str, Path]) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {"text": f"a film {index}", "label": "negative" if index % 2 else "positive"}
            )
            + "\n"
            for index in range(40)
        )
    )
    values = {**CASES["classification"].recipe(), **STEPS}
    values["data"] = {"source": {"files": {"train": str(rows)}}}
    trainer.train(trainer.Recipe(**values), run_dir=tmp_path / "run", progress=None)
    rows.unlink()
    ended = invoke("export", tmp_path / "run", tmp_path / "dest")
    assert ended.exit_code == 2
    assert str(rows) in ended.stderr
    assert not (tmp_path / "dest").exists()
