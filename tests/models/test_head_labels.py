"""A pretrained classification head: its rows follow the labels' names, or a new head is drawn."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import MODES
from torch import Tensor
from transformers import (
    CONFIG_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)

from trainer.errors import ConfigError
from trainer.models.export import merged
from trainer.models.load import LoadedModel, ModelSpec, load_model
from trainer.models.tuning import apply_tuning
from trainer.recipe.model import Model
from trainer.recipe.tuning import AdapterTuning

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "d_inner"), 32),
    "d_head": 16,
    "num_key_value_heads": 2,
    "vocab_size": 40,
    "pad_token_id": 1,
}
HEADS = {
    "bert": "classifier",
    "roberta": "classifier.out_proj",
    "distilbert": "classifier",
    "llama": "score",
    "xlnet": "logits_proj",
    "xlm": "sequence_summary.summary",
}
"""By model type, the layer with a row for each label."""
LABELS = ["negative", "neutral", "positive"]


def save(folder: Path, kind: str = "bert", names: Any = LABELS, num_labels: int = 3) -> None:
    known = CONFIG_MAPPING[kind]()
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    torch.manual_seed(3)
    config = CONFIG_MAPPING[kind](**sizes, num_labels=num_labels)
    model: Any = AutoModelForSequenceClassification.from_config(config)
    for name, one in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(one)
    if names is not None:
        model.config.id2label = dict(enumerate(names))
        model.config.label2id = {name: row for row, name in enumerate(names)}
    model.save_pretrained(folder)


def load(
    folder: Path,
    labels: list[str],
    *,
    mode: str = "full",
    auto_model: str = "AutoModelForSequenceClassification",
    **settings: Any,
) -> LoadedModel:
    config = AutoConfig.from_pretrained(folder)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: row for row, label in enumerate(labels)}
    return load_model(
        ModelSpec(
            Model(name_or_path=str(folder), **settings),
            config,
            auto_model=auto_model,
            tokenizer_size=40,
            mode=mode,
            frozen_dtype=torch.float32,
            seed=1,
        )
    )


def weights(loaded: LoadedModel | Any) -> dict[str, Tensor]:
    model = loaded.model if isinstance(loaded, LoadedModel) else loaded
    return {k: v for k, v in model.state_dict().items() if isinstance(v, Tensor)}


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(5, 13)[None]).logits[0]


@pytest.mark.parametrize(
    ("kind", "mode"), [*((kind, "full") for kind in HEADS), *(("bert", mode) for mode in MODES[1:])]
)
def test_rows_follow_the_names_of_the_labels(kind: str, mode: str, tmp_path: Path) -> None:
    save(tmp_path, kind)
    same = load(tmp_path, LABELS, mode=mode)
    turned = load(tmp_path, LABELS[::-1], mode=mode)
    assert same.notes == ()
    assert "negative, neutral, positive" in turned.notes[0]
    assert "positive, neutral, negative" in turned.notes[0]
    assert turned.fresh == same.fresh == ()
    for name, one in weights(same).items():
        expected = one.flip(0) if name.startswith(f"{HEADS[kind]}.") else one
        assert torch.equal(weights(turned)[name], expected), name
    if kind != "xlm":
        assert torch.allclose(logits(turned.model), logits(same.model).flip(0), atol=1e-6)


def test_the_export_has_the_order_of_the_recipe(tmp_path: Path) -> None:
    save(tmp_path / "base", "llama")

    loaded = load(tmp_path / "base", ["positive", "negative", "neutral"], mode="lora")
    expected = logits(loaded.model)
    tuned = apply_tuning(loaded, AdapterTuning(), trains_head=True, gradient_checkpointing=False)
    merged(tuned).save_pretrained(tmp_path / "out")
    again: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert again.config.id2label == {0: "positive", 1: "negative", 2: "neutral"}
    assert torch.allclose(logits(again), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("names", "labels", "turned"),
    [
        (["NEGATIVE", "POSITIVE"], ["positive", "negative"], True),
        (["Negative ", "positive"], ["negative", "positive"], False),
        (["a", "A"], ["A", "a"], True),
        (["1", "0"], ["0", "1"], True),
    ],
)
def test_case_is_ignored_unless_it_distinguishes_labels(
    names: list[str], labels: list[str], turned: bool, tmp_path: Path
) -> None:
    save(tmp_path, names=names, num_labels=2)
    stored = weights(AutoModelForSequenceClassification.from_pretrained(tmp_path))
    found = weights(load(tmp_path, labels))["classifier.weight"]
    assert torch.equal(found, stored["classifier.weight"].flip(0) if turned else found)
    assert torch.equal(found, stored["classifier.weight"]) != turned


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (None, ["negative", "positive"]),
        (["LABEL_0", "LABEL_1"], ["negative", "positive"]),
        (["0", "1"], ["negative", "positive"]),
        (["negative", "positive"], ["0", "1"]),
        (["negative", "positive"], ["LABEL_0", "LABEL_1"]),
    ],
)
def test_generic_names_are_matched_by_position_with_a_note(
    names: list[str] | None, labels: list[str], tmp_path: Path
) -> None:
    save(tmp_path, names=names, num_labels=2)
    loaded = load(tmp_path, labels)
    stored = weights(AutoModelForSequenceClassification.from_pretrained(tmp_path))
    assert torch.equal(weights(loaded)["classifier.weight"], stored["classifier.weight"])
    assert len(loaded.notes) == 1
    assert "by position" in loaded.notes[0]


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        (["negative", "positive"], ["bad", "good"]),
        (["negative", "positive"], ["negative", "good"]),
        (["entailment", "contradiction"], ["1", "2"]),
        (["a", "a"], ["a", "b"]),
        (["LABEL_1", "LABEL_0"], ["negative", "positive"]),
    ],
)
def test_other_names_are_refused_with_both_lists(
    names: list[str], labels: list[str], tmp_path: Path
) -> None:
    save(tmp_path, names=names, num_labels=2)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, labels)
    assert (caught.value.key, caught.value.value) == ("task.labels", labels)
    assert "model.fresh_head: true" in str(caught.value.hint)
    assert ", ".join(labels) in str(caught.value)
    assert ", ".join(names) in str(caught.value)
    assert load(tmp_path, labels, head_labels="position").fresh == ()


def test_an_id2label_that_does_not_number_rows_is_ignored(tmp_path: Path) -> None:
    save(tmp_path, num_labels=3)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    for names in ({"1": "negative", "2": "neutral", "3": "positive"}, {"0": "negative"}):
        file.write_text(json.dumps(values | {"id2label": names}))
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, LABELS)
        assert caught.value.key in ("task.labels", "model.name_or_path")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("labels", [LABELS[::-1], ["a", "b"]])
def test_a_fresh_head_keeps_the_backbone(labels: list[str], mode: str, tmp_path: Path) -> None:
    save(tmp_path, "llama")
    stored = weights(AutoModelForSequenceClassification.from_pretrained(tmp_path))
    loaded = load(tmp_path, labels, mode=mode, fresh_head=True)
    again = load(tmp_path, labels, mode=mode, fresh_head=True)
    assert loaded.fresh == ("score",)
    head = weights(loaded)["score.weight"]
    assert head.shape == (len(labels), 32)
    assert head.std() > 0.005
    assert torch.equal(head, weights(again)["score.weight"])
    if len(labels) == 3:
        assert not torch.isclose(head, stored["score.weight"]).any()
    embedding = "model.embed_tokens.weight"
    assert torch.equal(weights(loaded)[embedding], stored[embedding])


@pytest.mark.parametrize("kind", HEADS)
def test_a_fresh_head_is_that_of_a_model_without_one(kind: str, tmp_path: Path) -> None:
    save(tmp_path / "whole", kind)
    whole: Any = AutoModelForSequenceClassification.from_pretrained(tmp_path / "whole")
    whole.base_model.save_pretrained(tmp_path / "backbone")
    new = load(tmp_path / "whole", ["a", "b"], fresh_head=True)
    without = load(tmp_path / "backbone", ["a", "b"])
    assert new.fresh == without.fresh
    for name, one in weights(without).items():
        if "pooler" not in name and not name.startswith("sequence_summary"):
            assert torch.equal(weights(new)[name], one), name


def test_another_number_of_labels_is_refused_with_the_way_out(tmp_path: Path) -> None:
    save(tmp_path)
    with pytest.raises(ConfigError, match=r"\[3, 32\] .*\[2, 32\]") as caught:
        load(tmp_path, ["negative", "positive"])
    assert (caught.value.key, caught.value.value) == ("model.name_or_path", str(tmp_path))
    assert "model.fresh_head: true" in str(caught.value.hint)


def test_a_multi_label_head_gives_a_note(tmp_path: Path) -> None:
    save(tmp_path)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"problem_type": "multi_label_classification"}))
    assert "multi_label_classification" in load(tmp_path, LABELS).notes[0]


def test_the_language_model_of_zero_shot_keeps_its_head(tmp_path: Path) -> None:
    known = CONFIG_MAPPING["llama"]()
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    language_model = AutoModelForCausalLM.from_config(CONFIG_MAPPING["llama"](**sizes))
    language_model.save_pretrained(tmp_path)
    loaded = load(tmp_path, ["a", "b"], auto_model="AutoModelForCausalLM", fresh_head=True)
    assert loaded.fresh == ()
    assert torch.equal(weights(loaded)["lm_head.weight"], weights(language_model)["lm_head.weight"])
