"""An exported folder, loaded by transformers alone, gives the logits of the trained model."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from support.export_families import save_base
from support.tiny_models import MODES, architectures, build_config, load, save_backbones, tuning_of
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
)

from trainer.models.architecture import build_model_config
from trainer.models.export import export_adapter, export_model, merged
from trainer.models.load import ModelSpec, load_model
from trainer.models.parameters import trainable_parameters
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.models.tuning import apply_tuning
from trainer.optim import build_optimizer
from trainer.recipe.data import Columns
from trainer.recipe.model import Model
from trainer.recipe.training import Optimizer
from trainer.recipe.tuning import AdapterTuning, Tuning
from trainer.tasks.base import Objective
from trainer.tasks.classification.task import Classification

ADAPTERS = MODES[2:]
ARCHITECTURES = architectures(initializer_range=0.1)  # logits that differ, also between texts
# An int8 layer also rounds its inputs, to 1/127 of the largest of a token; the export does not.
TOLERANCES = {**dict.fromkeys(MODES, 1e-5), "int8_lora": 0.02}
TEXTS = [f"the film was {word}{' and long' * n}" for n, word in enumerate("dull weak good".split())]
TASK = Classification(
    labels=("bad", "poor", "good"), columns=Columns(), tokenizer=None, max_seq_length=32
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A backbone and its tokenizer for each architecture, as a hub would give them."""
    return save_backbones(tmp_path_factory.mktemp("bases"), ARCHITECTURES, TEXTS)


@dataclass(frozen=True)
class Trained:
    base: Path
    mode: str
    model: Any
    tokenizer: Any
    inputs: dict[str, Tensor]

    def logits(self, model: nn.Module | None = None) -> Tensor:
        with torch.no_grad():
            return (model or self.model).eval()(**self.inputs).logits

    def export(self, folder: Path) -> Any:
        export_model(self.model, self.tokenizer, folder)
        return AutoModelForSequenceClassification.from_pretrained(folder)


def train(
    base: Path,
    mode: str,
    *,
    dtype: torch.dtype = torch.float32,
    bias: str = "none",
    tuning: Tuning | None = None,
) -> Trained:
    settings = Model(name_or_path=str(base))
    loaded, tokenizer = load(settings, TASK.config_values(), mode=mode, dtype=dtype)
    if dtype != torch.float32:  # numbers drawn in bf16 differ between versions of torch
        head = loaded.model.score.weight
        random = torch.Generator().manual_seed(1)
        head.data = torch.empty(head.shape).normal_(std=0.1, generator=random).to(dtype)
    tuning = tuning or tuning_of(mode, r=4, alpha=8, bias=bias)
    model = apply_tuning(loaded, tuning, trains_head=True, gradient_checkpointing=False).train()
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    optimizer = build_optimizer(trainable_parameters(model), Optimizer(learning_rate=2e-2))
    for _ in range(4):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            (loss,), _ = Objective(model, TASK)(inputs, {"labels": torch.tensor([0, 1, 2])})
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return Trained(base, mode, model, tokenizer, inputs)


@pytest.fixture(
    scope="module",
    params=[(name, mode) for name in ARCHITECTURES for mode in MODES],
    ids=lambda pair: "-".join(pair),
)
def trained(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Trained:
    name, mode = request.param
    return train(folders[name], mode)


@pytest.fixture(scope="module")
def folder(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("export")
    export_model(trained.model, trained.tokenizer, folder)
    yield folder
    shutil.rmtree(folder)


def test_the_export_answers_as_the_trained_model(trained: Trained, folder: Path) -> None:
    exported = AutoModelForSequenceClassification.from_pretrained(folder)
    tolerance, expected = TOLERANCES[trained.mode], trained.logits()
    assert expected.std() > 5 * tolerance
    torch.testing.assert_close(trained.logits(exported), expected, rtol=0, atol=tolerance)


def test_the_export_is_plain(trained: Trained, folder: Path) -> None:
    written = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in written
    assert written["use_cache"] is True
    assert written["dtype"] == "float32"
    assert {file.name for file in folder.glob("*.safetensors")} == {"model.safetensors"}
    assert not list(folder.glob("adapter*"))
    exported, info = AutoModelForSequenceClassification.from_pretrained(
        folder, output_loading_info=True
    )
    assert not any(info.values())  # no missing, unexpected or mismatched keys
    assert exported.config.id2label == {0: "bad", 1: "poor", 2: "good"}
    assert exported.config.label2id == {"bad": 0, "poor": 1, "good": 2}
    assert exported.config.pad_token_id == trained.tokenizer.pad_token_id
    assert exported.config.architectures == [type(exported).__name__]


def test_training_can_go_on_after_the_export(trained: Trained, folder: Path) -> None:
    assert folder.is_dir()
    assert trained.model.config.use_cache is False
    assert hasattr(trained.model, "peft_config") == (trained.mode in ADAPTERS)


def test_the_exported_tokenizer_encodes_equally(trained: Trained, folder: Path) -> None:
    exported = AutoTokenizer.from_pretrained(folder)
    texts, pairs = [*TEXTS, "never seen"], [*TEXTS[::-1], "words"]
    kwargs = {"padding": True, "truncation": True, "max_length": 16}
    assert dict(exported(texts, **kwargs)) == dict(trained.tokenizer(texts, **kwargs))
    assert dict(exported(texts, pairs, **kwargs)) == dict(trained.tokenizer(texts, pairs, **kwargs))
    assert exported.padding_side == "right"


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("mode", ADAPTERS)
def test_adapters_load_through_peft_onto_the_base(
    folders: dict[str, Path], tmp_path: Path, name: str, mode: str
) -> None:
    trained = train(folders[name], mode)
    export_adapter(trained.model, tmp_path)
    settings = Model(name_or_path=str(trained.base))
    base = load_model(
        ModelSpec(
            settings,
            build_config(settings, TASK.config_values(), trained.tokenizer),
            auto_model=TASK.auto_model,
            tokenizer_size=len(trained.tokenizer),
            mode=trained.mode,
            frozen_dtype=torch.float32,
            seed=99,  # another fresh head: the trained one must come from the folder
        )
    ).model
    adapted = PeftModel.from_pretrained(base, tmp_path)
    torch.testing.assert_close(trained.logits(adapted), trained.logits(), rtol=0, atol=1e-5)


def test_an_int8_export_holds_the_dequantised_weights(folders: dict[str, Path]) -> None:
    trained = train(folders["llama"], "int8_lora")
    name = "model.layers.1.mlp.down_proj"
    layer = trained.model.get_submodule(f"base_model.model.{name}")
    found = merged(trained.model).get_submodule(name).weight
    dense = layer.base_layer.weight.data.float() * layer.base_layer.state.SCB[:, None] / 127
    adapter = layer.lora_B["default"].weight @ layer.lora_A["default"].weight * 2  # alpha / r
    torch.testing.assert_close(found, dense + adapter, rtol=0, atol=1e-6)
    original = AutoModel.from_pretrained(folders["llama"]).layers[1].mlp.down_proj.weight
    half_a_step = original.abs().amax(1, keepdim=True) / 127 / 2
    assert ((dense - original).abs() < 1.2 * half_a_step).all()  # it rounds to fp16 first


@pytest.mark.parametrize("mode", ["lora", "qlora"])
@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_trained_biases_are_exported(
    folders: dict[str, Path], tmp_path: Path, mode: str, bias: str
) -> None:
    trained = train(folders["bert"], mode, bias=bias)
    exported = trained.export(tmp_path)
    torch.testing.assert_close(trained.logits(exported), trained.logits(), rtol=0, atol=1e-5)


class VariantTuning(AdapterTuning):
    """What a recipe would need to offer variants of LoRA: fields that PEFT's LoraConfig has."""

    use_dora: bool = False
    use_rslora: bool = False


@pytest.mark.parametrize("mode", ["lora", "qlora"])
@pytest.mark.parametrize("variant", ["use_dora", "use_rslora"])
def test_variants_of_lora_are_fields_more_and_are_exported(
    folders: dict[str, Path], tmp_path: Path, mode: Any, variant: str
) -> None:
    tuning = VariantTuning(mode=mode, r=4, alpha=8, dropout=0.0).model_copy(update={variant: True})
    trained = train(folders["bert"], mode, tuning=tuning)
    if variant == "use_dora":
        assert any("lora_magnitude_vector" in name for name in trainable_parameters(trained.model))
    else:
        modules: list[Any] = list(trained.model.modules())
        scales = {module.scaling["default"] for module in modules if hasattr(module, "lora_A")}
        assert scales == {8 / 4**0.5}
    exported = trained.export(tmp_path)
    torch.testing.assert_close(trained.logits(exported), trained.logits(), rtol=0, atol=1e-5)
    plain = train(folders["bert"], mode).logits()
    assert (plain - trained.logits()).abs().max() > 1e-3


@pytest.mark.parametrize("mode", MODES)
def test_a_trained_pooler_is_exported(folders: dict[str, Path], tmp_path: Path, mode: str) -> None:
    base = tmp_path / "masked-lm"
    BertForMaskedLM.from_pretrained(folders["bert"]).save_pretrained(base)
    load_tokenizer(Model(name_or_path=str(folders["bert"]))).save_pretrained(base)
    trained = train(base, mode)
    exported = trained.export(tmp_path / "export")
    tolerance = TOLERANCES[mode]
    torch.testing.assert_close(trained.logits(exported), trained.logits(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("mode", MODES)
def test_the_export_of_a_bf16_run_answers_alike(
    folders: dict[str, Path], tmp_path: Path, mode: str
) -> None:
    trained = train(folders["llama"], mode, dtype=torch.bfloat16)
    exported = trained.export(tmp_path)
    with torch.autocast("cpu", torch.bfloat16):
        expected = trained.logits().float()
        found = trained.logits(exported).float()
    # bf16 keeps 8 bits: about 1/256 of numbers around 1, over a few layers.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.05)


@pytest.mark.parametrize("mode", ["full", "lora", "qlora"])
def test_generation_keeps_its_settings_and_stops_where_it_stopped_here(
    mode: str, tmp_path: Path
) -> None:
    base = save_base("llama", tmp_path / "base", "AutoModelForCausalLM")
    own = {"eos_token_id": [1, 13], "repetition_penalty": 1.2, "max_new_tokens": 50}
    own |= {"temperature": 0.5, "do_sample": False}  # which GenerationConfig itself does not save
    (base / "generation_config.json").write_text(json.dumps(own))
    settings = Model(name_or_path=str(base))
    tokenizer = load_tokenizer(settings)
    loaded = load_model(
        ModelSpec(
            settings,
            build_model_config(settings, tokenizer),
            auto_model="AutoModelForCausalLM",
            tokenizer_size=len(tokenizer),
            mode=mode,
            frozen_dtype=torch.float32,
            seed=1,
        )
    )
    tuned = apply_tuning(loaded, tuning_of(mode), trains_head=False, gradient_checkpointing=False)

    def exported(*ends: int) -> dict[str, Any]:
        export_model(tuned, tokenizer, tmp_path / "model", ends=ends)
        return json.loads((tmp_path / "model" / "generation_config.json").read_text())

    for name, value in own.items():
        assert exported(1, 13).get(name, False) == value
    assert exported(1, 13, 7)["eos_token_id"] == [1, 13, 7]  # the end of a turn
    assert exported()["eos_token_id"] == [1, 13]  # a task that generates nothing
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").generation_config.eos_token_id
