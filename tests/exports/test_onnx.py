"""An ONNX graph computes what the exported model does, at other batch sizes and lengths, too."""

from pathlib import Path

import onnxruntime
import pytest
import torch
import transformers
from support.export_families import save_base
from torch import nn

from trainer.errors import CheckpointError, ConfigError
from trainer.exports import onnx as writer
from trainer.exports.onnx import write_onnx

CASES = [
    ("bert", "AutoModelForSequenceClassification", ["logits"]),
    ("llama", "AutoModelForCausalLM", ["logits"]),
    ("distilbert", "AutoModelForQuestionAnswering", ["start_logits", "end_logits"]),
    ("llama", "AutoModelForSequenceClassification", ["logits"]),
    ("bert", "AutoModelForPreTraining", ["prediction_logits", "seq_relationship_logits"]),
    ("phi", "AutoModelForCausalLM", ["logits"]),
]


def save(kind: str, auto_model: str, folder: Path) -> Path:
    save_base(kind, folder, auto_model)
    return folder


def check(kind: str, auto_model: str, outputs: list[str], folder: Path) -> None:
    save(kind, auto_model, folder / "model")
    notes = write_onnx(folder / "model", folder / "model.onnx")
    assert sorted(path.name for path in folder.iterdir()) == ["model", "model.onnx"]
    assert ("no key-value cache" in " ".join(notes)) == auto_model.endswith("CausalLM")
    session = onnxruntime.InferenceSession(folder / "model.onnx")
    assert [output.name for output in session.get_outputs()] == outputs
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    model = getattr(transformers, auto_model).from_pretrained(folder / "model").eval()
    names = {item.name for item in session.get_inputs()}
    for texts in (["a lovely one"], ["dull", "good and bad film", "a film that is long"] * 2):
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        batch = {name: value for name, value in batch.items() if name in names}
        with torch.no_grad():
            expected = model(**batch)
        found = session.run(outputs, {name: value.numpy() for name, value in batch.items()})
        for name, value in zip(outputs, found, strict=True):
            gap = (torch.from_numpy(value) - expected[name]).abs()
            if value.shape[:2] == batch["input_ids"].shape:
                gap = gap[batch["attention_mask"].bool()]
            assert gap.max() <= 1e-4 * expected[name].std()


def test_a_graph_computes_what_the_model_does(tmp_path: Path) -> None:
    check(*CASES[0], tmp_path)


@pytest.mark.distributed
@pytest.mark.parametrize(("kind", "auto_model", "outputs"), CASES[1:])
def test_a_graph_of_each_task_computes_what_the_model_does(
    kind: str, auto_model: str, outputs: list[str], tmp_path: Path
) -> None:
    check(kind, auto_model, outputs, tmp_path)


def test_a_graph_that_computes_something_else_is_found_and_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(*CASES[0][:2], tmp_path / "model")
    export = writer._export

    def export_another(graph: nn.Module, *arguments: object) -> None:
        export(graph, *arguments)
        with torch.no_grad():
            next(graph.parameters()).mul_(1.01)

    monkeypatch.setattr(writer, "_export", export_another)
    with pytest.raises(CheckpointError, match=r"does not compute what the model does: logits diff"):
        write_onnx(folder, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_torch_cannot_export_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(*CASES[0][:2], tmp_path / "model")

    def by_value(self: nn.Module, *tensors: torch.Tensor) -> object:
        return (tensors[0][: int(tensors[0].sum().item())],)

    monkeypatch.setattr(writer._Graph, "forward", by_value)
    with pytest.raises(ConfigError, match="torch cannot export a BertForSequenceClassification"):
        write_onnx(folder, tmp_path / "model.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
