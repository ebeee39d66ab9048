"""Counts are those that papers print, whatever the storage."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny_models import build_config, tuning_of
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from trainer.models.load import ModelSpec, load_model
from trainer.models.parameters import count_parameters, trainable_parameters
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.models.tuning import apply_tuning
from trainer.recipe.model import Model

LLAMA_1B = {
    "vocab_size": 128256,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}
PHI_2 = {
    "vocab_size": 51200,
    "hidden_size": 2560,
    "intermediate_size": 10240,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}


@pytest.mark.parametrize(
    ("auto", "kind", "numbers", "num_labels", "total"),
    [
        (AutoModelForSequenceClassification, "bert", {}, 2, 109_483_778),
        (AutoModelForSequenceClassification, "llama", LLAMA_1B, 2, 1_235_818_496),
        (AutoModelForSequenceClassification, "phi", PHI_2, 3, 2_648_568_320),
        (AutoModelForCausalLM, "llama", LLAMA_1B, 2, 1_235_814_400),  # its head is tied
    ],
)
def test_totals_are_the_published_ones(
    auto: Any, kind: str, numbers: dict[str, Any], num_labels: int, total: int
) -> None:
    with torch.device("meta"):
        model = auto.from_config(AutoConfig.for_model(kind, num_labels=num_labels, **numbers))
    counts = count_parameters(model)
    assert (counts.total, counts.trainable, counts.stored) == (total, total, total)


def test_a_tied_weight_counts_once() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 10))
    assert count_parameters(model).total == 90
    model[1].weight = model[0].weight
    assert count_parameters(model).total == 50


NUM_BLOCKS, HIDDEN, INNER, RANK, NUM_LABELS = 2, 64, 128, 4, 3
ADAPTERS = NUM_BLOCKS * RANK * (4 * (HIDDEN + HIDDEN) + 3 * (HIDDEN + INNER))
LINEAR = NUM_BLOCKS * (4 * HIDDEN * HIDDEN + 3 * HIDDEN * INNER)
HEAD = NUM_LABELS * HIDDEN


@pytest.fixture(scope="module")
def tokenizer_folder(trained_tokenizer: Any) -> Path:
    return Path(trained_tokenizer("bpe", 300, ["a few words"]).name_or_path)


def tiny_llama(tokenizer_folder: Path, mode: str) -> nn.Module:
    settings = Model(
        architecture={
            "model_type": "llama",
            "hidden_size": HIDDEN,
            "intermediate_size": INNER,
            "num_hidden_layers": NUM_BLOCKS,
            "num_attention_heads": 4,
        },
        initialization="random",
        tokenizer=str(tokenizer_folder),
    )
    tokenizer = load_tokenizer(settings)
    loaded = load_model(
        ModelSpec(
            settings,
            build_config(settings, {"num_labels": NUM_LABELS}, tokenizer),
            auto_model="AutoModelForSequenceClassification",
            tokenizer_size=len(tokenizer),
            mode=mode,
            frozen_dtype=torch.float32,
            seed=1,
        )
    )
    tuning = tuning_of(mode, r=RANK)
    return apply_tuning(loaded, tuning, trains_head=True, gradient_checkpointing=False)


@pytest.mark.parametrize(
    ("mode", "added", "trainable", "packed_away"),
    [
        ("full", 0, None, 0),
        ("head_only", 0, HEAD, 0),
        # PEFT keeps the head twice: as it was, and the copy that learns.
        ("lora", ADAPTERS + HEAD, ADAPTERS + HEAD, 0),
        ("qlora", ADAPTERS + HEAD, ADAPTERS + HEAD, LINEAR // 2),
        ("int8_lora", ADAPTERS + HEAD, ADAPTERS + HEAD, 0),
    ],
)
def test_a_quantised_model_has_as_many_weights_as_before(
    tokenizer_folder: Path, mode: str, added: int, trainable: int | None, packed_away: int
) -> None:
    plain = count_parameters(tiny_llama(tokenizer_folder, "full")).total
    model = tiny_llama(tokenizer_folder, mode)
    counts = count_parameters(model)
    assert counts.total == plain + added
    assert counts.trainable == (plain if trainable is None else trainable)
    assert counts.stored == counts.total - packed_away
    assert sum(p.numel() for p in trainable_parameters(model).values()) == counts.trainable
