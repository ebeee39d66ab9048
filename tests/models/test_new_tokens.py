"""New tokens: the vocabulary grows, their rows are trained in every mode, and exported."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from support.export_families import ENCODERS, save_base
from support.export_gate import Cell, distance, export_cell, load_afresh

from trainer.errors import ConfigError
from trainer.models.architecture import build_model_config
from trainer.models.load import ModelSpec, load_model
from trainer.models.tokenizers.own_tokens import new_tokens
from trainer.models.tokenizers.tokenizer import load_tokenizer, num_rows, train_tokenizer
from trainer.models.tuning import apply_tuning
from trainer.recipe.model import Model, TrainedTokenizer
from trainer.recipe.tuning import AdapterTuning

OWN = ["film that", "<pause>"]  # the first is in the texts


def language_model(kind: str) -> str:
    return "AutoModelForMaskedLM" if kind in ENCODERS else "AutoModelForCausalLM"


def with_own_tokens(kind: str, folder: Path, **numbers: Any) -> Model:
    """Settings with a family's base and a tokenizer that has additional tokens."""
    base = save_base(kind, folder / "base", language_model(kind), **numbers)
    tokenizer = load_tokenizer(Model(name_or_path=str(base)))
    assert tokenizer.add_tokens(OWN) == len(OWN)
    tokenizer.save_pretrained(folder / "tokenizer")
    return Model(name_or_path=str(base), tokenizer=str(folder / "tokenizer"))


def load(settings: Model, auto_model: str, mode: str = "full") -> tuple[Any, Any, list[int]]:
    tokenizer = load_tokenizer(settings)
    shape = build_model_config(settings, tokenizer)
    loaded = load_model(
        ModelSpec(
            settings,
            shape,
            auto_model=auto_model,
            tokenizer_size=num_rows(tokenizer),
            mode=mode,
            frozen_dtype=torch.float32,
            seed=1,
        )
    )
    return loaded, tokenizer, new_tokens(settings, tokenizer, shape.vocab_size)


@pytest.mark.parametrize("kind", ["bert", "gpt2", "llama", "phi"])  # tied and not, with a bias
def test_new_rows_are_the_mean_of_the_old(kind: str, tmp_path: Path) -> None:
    settings = with_own_tokens(kind, tmp_path)
    loaded, tokenizer, new = load(settings, language_model(kind))
    old, _, none = load(settings.model_copy(update={"tokenizer": None}), language_model(kind))
    assert none == []
    rows = num_rows(tokenizer) - len(new)
    for grown, before in (
        (loaded.model.get_input_embeddings(), old.model.get_input_embeddings()),
        (loaded.model.get_output_embeddings(), old.model.get_output_embeddings()),
    ):
        torch.testing.assert_close(grown.weight[:rows], before.weight, rtol=0, atol=0)
        mean = before.weight.mean(0).expand(len(new), -1)
        torch.testing.assert_close(grown.weight[rows:], mean, rtol=0, atol=1e-6)
    assert loaded.model.config.vocab_size == rows + len(new) == max(new) + 1


def test_all_modes_and_heads_leave_with_new_tokens(tmp_path: Path) -> None:
    cells: list[Cell] = []
    for kind, task, modes in (
        ("bert", "masked_lm", ("lora",)),  # tied, with a bias
        ("bert", "classification", ("full", "head_only", "int8_lora")),
        ("gptj", "causal_lm", ("qlora",)),  # a bias, not tied
        ("llama", "causal_lm", ("lora", "full")),
    ):
        settings = with_own_tokens(kind, tmp_path / f"{kind}-{task}")
        base, tokenizer = Path(str(settings.name_or_path)), Path(str(settings.tokenizer))
        for mode in modes:
            name = tmp_path / f"{kind}-{task}-{mode}"
            cell = export_cell(base, name, task, mode, tokenizer=tokenizer)
            assert isinstance(cell, Cell), cell
            cells.append(cell)
    found = load_afresh(cells, tmp_path)
    for cell in cells:
        problems, logits = found[cell.name]
        assert problems == []
        assert distance(cell, "model", logits) < (0.15 if "int8" in cell.name else 1e-4)
        if cell.adapter is not None:
            assert distance(cell, "adapter", logits) < 1e-5
            vocabulary = [
                value
                for name, value in load_file(cell.adapter / "adapter_model.safetensors").items()
                if "token" in name or "embed" in name or "lm_head" in name
            ]
            assert vocabulary
            assert all(len(value) == len(OWN) for value in vocabulary)  # the new rows alone


def test_tokens_in_unused_rows_learn_beside_adapters(tmp_path: Path) -> None:
    """New tokens of Qwen and others, whose vocabulary is padded, take unused rows."""
    base = save_base("llama", tmp_path / "base", "AutoModelForCausalLM", vocab_size=320)
    tokenizer = load_tokenizer(Model(name_or_path=str(base)))
    first = num_rows(tokenizer)
    tokenizer.add_tokens(OWN)
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    settings = Model(name_or_path=str(base), tokenizer=str(tmp_path / "tokenizer"))
    loaded, _, new = load(settings, "AutoModelForCausalLM", "lora")
    assert new == [first, first + 1]
    tuned = apply_tuning(
        loaded,
        AdapterTuning(),
        trains_head=False,
        gradient_checkpointing=False,
        new_tokens=new,
    )
    assert tuned.config.vocab_size == 320
    learned = [one for name, one in tuned.named_parameters() if "trainable_tokens" in name]
    assert [tuple(one.shape) for one in learned] == [(2, 32), (2, 32)]  # input and output


def test_a_larger_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    base = save_base("llama", tmp_path / "base", "AutoModelForCausalLM")
    words = [f"{letter}{number}" for letter in "abcdefgh" for number in range(60)]
    train_tokenizer(TrainedTokenizer(train="bpe", vocab_size=400), words, tmp_path / "other")
    settings = Model(name_or_path=str(base), tokenizer=str(tmp_path / "other"))
    with pytest.raises(ConfigError, match="have other ids in it") as caught:
        load(settings, "AutoModelForCausalLM")
    assert caught.value.key == "model.tokenizer"
    assert "one that adds tokens" in str(caught.value.hint)


def test_a_model_that_cannot_grow_is_refused(tmp_path: Path) -> None:
    settings = with_own_tokens("mobilebert", tmp_path)
    with pytest.raises(ConfigError, match="a mobilebert cannot grow") as caught:
        load(settings, "AutoModelForMaskedLM")
    assert caught.value.key == "model.tokenizer"


@pytest.mark.parametrize("mode", ["lora", "qlora"])
def test_adapters_load_on_a_base_without_its_vocabulary_head(mode: str, tmp_path: Path) -> None:
    """The head is new, except for the output layer, which is tied to the embedding."""
    cells: list[Cell] = []
    for kind, task in (("bert", "masked_lm"), ("roberta", "masked_lm"), ("gpt2", "causal_lm")):
        base = save_base(kind, tmp_path / f"{kind}-base", "AutoModel")
        cell = export_cell(base, tmp_path / kind, task, mode)
        assert isinstance(cell, Cell), cell
        cells.append(cell)
        saved = json.loads((cell.folder / "config.json").read_text())
        assert saved["vocab_size"] == len(load_tokenizer(Model(name_or_path=str(base))))
    found = load_afresh(cells, tmp_path)
    for cell in cells:
        problems, logits = found[cell.name]
        assert problems == []
        assert distance(cell, "model", logits) < 1e-4
        assert distance(cell, "adapter", logits) < 1e-5
