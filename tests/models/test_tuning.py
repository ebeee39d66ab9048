"""Each tuning mode on each architecture: what is trained, what stays, and that the loss falls."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from support import tiny_models
from support.tiny_models import MODES, SIZES, architectures, save_backbones, tuning_of
from torch import Tensor, nn
from transformers import AutoModel, BertForMaskedLM

from trainer.errors import ConfigError
from trainer.models.load import LoadedModel
from trainer.models.parameters import trainable_parameters
from trainer.models.tuning import apply_tuning
from trainer.optim import build_optimizer
from trainer.recipe.data import Columns
from trainer.recipe.model import Model
from trainer.recipe.training import Optimizer
from trainer.recipe.tuning import HeadOnlyTuning
from trainer.tasks.base import Objective
from trainer.tasks.classification.task import Classification

ARCHITECTURES = architectures(initializer_range=0.2)  # else a frozen backbone hardly mixes tokens
for _encoder in ("bert", "roberta"):
    ARCHITECTURES[_encoder] |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ADAPTERS = MODES[2:]
HEADS = {"bert": "classifier", "roberta": "classifier", "llama": "score", "phi": "score"}
ENCODER_LAYER = ("query", "key", "value", "output.dense", "output.dense", "intermediate.dense")
LINEAR_LAYERS = {  # of one block of the backbone, and outside the blocks
    "bert": (ENCODER_LAYER, ("pooler.dense",)),
    "roberta": (ENCODER_LAYER, ()),
    "llama": ("q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split(), ()),
    "phi": ("q_proj k_proj v_proj dense fc1 fc2".split(), ()),
}
LEARNING_RATES = {"full": 2e-3, "head_only": 3e-2, "lora": 5e-3, "qlora": 5e-3, "int8_lora": 5e-3}

WORDS = ("awful boring dull poor weak".split(), "lovely great bright fine strong".split())
ROWS = [
    (f"the film was {one} and {two}{' indeed' * (index % 3)}", label)
    for label, words in enumerate(WORDS)
    for index, (one, two) in enumerate((one, two) for one in words for two in words)
]
TEXTS, LABELS = [text for text, _ in ROWS], [label for _, label in ROWS]
TASK = Classification(labels=("bad", "good"), columns=Columns(), tokenizer=None, max_seq_length=32)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A backbone and its tokenizer for each architecture, as a hub would give them."""
    return save_backbones(tmp_path_factory.mktemp("bases"), ARCHITECTURES, TEXTS)


def load(folder: Path, mode: str, dtype: torch.dtype = torch.float32) -> tuple[LoadedModel, Any]:
    settings = Model(name_or_path=str(folder))
    return tiny_models.load(settings, TASK.config_values(), mode=mode, dtype=dtype)


def tune(
    folder: Path, mode: str, *, checkpointing: bool = False, **tuning: Any
) -> tuple[nn.Module, dict[str, Tensor]]:
    """Returns a tuned model and a toy batch for it."""
    loaded, tokenizer = load(folder, mode)
    settings = tuning_of(mode, **{"r": 4, "alpha": 8, "dropout": 0.0, **tuning})
    model = apply_tuning(loaded, settings, trains_head=True, gradient_checkpointing=checkpointing)
    return model.train(), dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))


def learn(
    model: nn.Module,
    inputs: dict[str, Tensor],
    mode: str,
    num_steps: int,
    dtype: torch.dtype = torch.float32,
) -> list[float]:
    """Returns the loss before each of some optimizer steps."""
    objective, losses = Objective(model, TASK), []
    settings = Optimizer(learning_rate=LEARNING_RATES[mode])
    optimizer = build_optimizer(trainable_parameters(model), settings)
    for _ in range(num_steps):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            (loss,), _ = objective(inputs, {"labels": torch.tensor(LABELS)})
        (loss / len(LABELS)).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item() / len(LABELS))
    return losses


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor as it is stored, packed weights and their scales included."""
    return {k: v.clone() for k, v in model.state_dict().items() if isinstance(v, Tensor)}


@dataclass(frozen=True)
class Trained:
    name: str
    mode: str
    model: nn.Module
    before: dict[str, Tensor]
    losses: list[float]

    def is_head(self, name: str) -> bool:
        return HEADS[self.name] in name.split(".")

    def learns(self, name: str) -> bool:
        if self.mode == "full":
            return True
        if self.mode == "head_only":
            return self.is_head(name)
        return "lora_" in name or (self.is_head(name) and "modules_to_save" in name)


@pytest.fixture(
    scope="module",
    params=[(name, mode) for name in ARCHITECTURES for mode in MODES],
    ids=lambda pair: "-".join(pair),
)
def trained(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Trained:
    name, mode = request.param
    model, inputs = tune(folders[name], mode)
    before = snapshot(model)
    num_steps = 60 if mode == "head_only" else 20
    return Trained(name, mode, model, before, learn(model, inputs, mode, num_steps))


def test_the_loss_falls(trained: Trained) -> None:
    nothing_learned = math.log(2)
    assert trained.losses[-1] < 0.8 * min(trained.losses[0], nothing_learned)


def test_exactly_the_weights_of_the_mode_learn(trained: Trained) -> None:
    parameters = dict(trained.model.named_parameters())
    expected = {name for name in parameters if trained.learns(name)}
    after = snapshot(trained.model)
    changed = {name for name, old in trained.before.items() if not torch.equal(old, after[name])}
    assert after.keys() == trained.before.keys()
    assert set(trainable_parameters(trained.model)) == expected
    assert changed == expected


def test_what_learns_is_fp32(trained: Trained) -> None:
    assert {p.dtype for p in trainable_parameters(trained.model).values()} == {torch.float32}


def test_the_backbone_is_quantised_and_the_head_is_not(trained: Trained) -> None:
    packed = {"qlora": bitsandbytes.nn.Linear4bit, "int8_lora": bitsandbytes.nn.Linear8bitLt}
    quantised = {
        name
        for name, module in trained.model.named_modules()
        if isinstance(module, tuple(packed.values()))
    }
    if trained.mode not in packed:
        assert not quantised
        return
    block, _ = LINEAR_LAYERS[trained.name]
    assert len(quantised) == SIZES["num_hidden_layers"] * len(block)
    assert all(type(trained.model.get_submodule(n)) is packed[trained.mode] for n in quantised)
    assert not any(trained.is_head(name) or "pooler" in name for name in quantised)


def test_adapters_sit_on_every_linear_layer_of_the_backbone_and_the_head_is_saved(
    trained: Trained,
) -> None:
    if trained.mode not in ADAPTERS:
        assert not hasattr(trained.model, "peft_config")
        return
    block, outside = LINEAR_LAYERS[trained.name]
    expected = [*block] * SIZES["num_hidden_layers"] + [*outside]
    adapted = [n for n, m in trained.model.named_modules() if isinstance(m, LoraLayer)]
    assert len(adapted) == len(expected)
    assert all(any(name.endswith(f".{leaf}") for name in adapted) for leaf in expected)
    assert not any(trained.is_head(name) for name in adapted)
    saved = [n for n, m in trained.model.named_modules() if isinstance(m, ModulesToSaveWrapper)]
    assert [name.rpartition(".")[2] for name in saved] == [HEADS[trained.name]]


@pytest.mark.parametrize(
    ("name", "targets", "per_block"),
    [
        ("bert", ("query", "value"), 2),
        ("bert", ("attention.output.dense",), 1),  # not output.dense of the feed-forward part
        ("llama", ("layers.1.mlp.up_proj",), 0.5),
        ("phi", ("q_proj", "fc1", "fc2"), 3),
    ],
)
def test_adapters_sit_on_the_named_layers_only(
    folders: dict[str, Path], name: str, targets: tuple[str, ...], per_block: float
) -> None:
    model, _ = tune(folders[name], "lora", target_modules=targets)
    adapted = [n for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    assert len(adapted) == SIZES["num_hidden_layers"] * per_block
    assert all(name.endswith(tuple(f".{target}" for target in targets)) for name in adapted)


@pytest.mark.parametrize(
    ("name", "target", "nearest"),
    [("bert", "querry", "query"), ("llama", "q_projection", "q_proj"), ("phi", "fc3", "fc")],
)
def test_an_unknown_target_module_names_the_nearest(
    folders: dict[str, Path], name: str, target: str, nearest: str
) -> None:
    with pytest.raises(ConfigError, match=f"the model has no linear layer {target}; ") as caught:
        tune(folders[name], "lora", target_modules=("value", target)[name != "bert" :])
    assert (caught.value.key, caught.value.value) == ("tuning.target_modules", target)
    assert str(caught.value.hint).startswith(f"did you mean {nearest}")


def test_the_head_cannot_be_a_target_module(folders: dict[str, Path]) -> None:
    with pytest.raises(ConfigError) as caught:
        tune(folders["bert"], "lora", target_modules=("classifier",))
    assert (caught.value.key, caught.value.value) == ("tuning.target_modules", "classifier")


@pytest.mark.parametrize("mode", ["lora", "qlora"])
@pytest.mark.parametrize("bias", ["none", "lora_only", "all"])
def test_bias_says_which_biases_of_the_backbone_learn(
    folders: dict[str, Path], mode: str, bias: str
) -> None:
    model, inputs = tune(folders["bert"], mode, bias=bias, target_modules=("query", "value"))
    before = snapshot(model)
    learn(model, inputs, mode, 2)
    biases = {n for n, _ in model.named_parameters() if n.endswith("bias") and ".bert." in n}
    expected = {
        "none": set(),
        "lora_only": {name for name in biases if ".query." in name or ".value." in name},
        "all": biases,
    }[bias]
    after = snapshot(model)
    assert {name for name in biases if not torch.equal(before[name], after[name])} == expected


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("mode", ["full", "lora", "qlora"])
def test_gradient_checkpointing_keeps_less_and_gives_equal_gradients(
    folders: dict[str, Path], name: str, mode: str
) -> None:
    gradients, kept = [], []
    for checkpointing in (False, True):
        model, inputs = tune(folders[name], mode, checkpointing=checkpointing)
        for parameter in model.parameters():  # B starts at 0, and A's gradient with it
            if parameter.requires_grad and not parameter.any():
                nn.init.normal_(parameter, std=0.1, generator=torch.Generator().manual_seed(3))
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor, sizes=sizes: sizes.append(tensor.numel()) or tensor, lambda kept: kept
        ):
            (loss,), _ = Objective(model, TASK)(inputs, {"labels": torch.tensor(LABELS)})
        loss.backward()
        gradients.append({n: p.grad for n, p in trainable_parameters(model).items()})
        kept.append(sum(sizes))
    assert kept[1] < 0.5 * kept[0]
    assert all(gradient is not None for gradient in gradients[1].values())
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("mode", ["head_only", "lora", "qlora", "int8_lora"])
def test_a_pooler_without_pretrained_weights_learns(
    folders: dict[str, Path], tmp_path: Path, mode: str, checkpointing: bool
) -> None:
    folder = tmp_path / "masked-lm"
    loaded, tokenizer = load(folders["bert"], "full")
    BertForMaskedLM(loaded.model.config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    model, inputs = tune(folder, mode, checkpointing=checkpointing)
    before = snapshot(model)
    learn(model, inputs, mode, 2)
    after = snapshot(model)
    changed = {name for name, old in before.items() if not torch.equal(old, after[name])}
    pooler = {name for name in changed if "pooler" in name}
    assert len(pooler) == 2  # weight and bias
    assert not any("lora_" in name for name in pooler)
    assert len({name for name in changed if "classifier" in name}) == 2
    frozen = {name for name in changed if "lora_" not in name} - pooler
    assert all("classifier" in name for name in frozen)


@pytest.mark.parametrize(("head", "trains_head"), [((), True), (("pooler",), False)])
def test_head_only_needs_a_head(
    folders: dict[str, Path], head: tuple[str, ...], trains_head: bool
) -> None:
    backbone = AutoModel.from_pretrained(folders["bert"])
    with pytest.raises(ConfigError, match="head_only needs a head that belongs") as caught:
        apply_tuning(
            LoadedModel(backbone, head, ()),
            HeadOnlyTuning(),
            trains_head=trains_head,
            gradient_checkpointing=False,
        )
    assert (caught.value.key, caught.value.value) == ("tuning.mode", "head_only")


@pytest.mark.parametrize("mode", ["head_only", "lora", "qlora"])
def test_frozen_bf16_weights_stay_bf16_under_autocast(folders: dict[str, Path], mode: str) -> None:
    loaded, tokenizer = load(folders["llama"], mode, torch.bfloat16)
    settings = tuning_of(mode, r=4, alpha=8, dropout=0.0)
    model = apply_tuning(loaded, settings, trains_head=True, gradient_checkpointing=False)
    inputs = dict(tokenizer(TEXTS, padding=True, return_tensors="pt"))
    before = snapshot(model)
    losses = learn(model, inputs, mode, 25, torch.bfloat16)
    after = snapshot(model)
    assert losses[-1] < 0.5 * losses[0]
    learned = trainable_parameters(model)
    assert {p.dtype for p in learned.values()} == {torch.float32}
    frozen = [p for n, p in model.named_parameters() if n not in learned]
    assert {p.dtype for p in frozen} <= {torch.bfloat16, torch.uint8}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - learned.keys())
