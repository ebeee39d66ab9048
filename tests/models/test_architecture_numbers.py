"""Shipped numbers of published models give the parameter counts that were published."""

import json

import pytest
import torch
import transformers

from trainer.models.architecture import FOLDER, shape_config
from trainer.recipe.model import Model

PUBLISHED = {
    "bert-base-uncased": 109_482_240,
    "bigscience/bloom-560m": 559_214_592,
    "distilbert-base-uncased": 66_362_880,
    "gpt2": 124_439_808,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "HuggingFaceTB/SmolLM2-135M": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "microsoft/phi-2": 2_779_683_840,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "roberta-base": 124_645_632,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
}
"""Encoders without a head, decoders with their output layer."""
ENCODERS = ("bert", "distilbert", "roberta")


@pytest.mark.parametrize("name", PUBLISHED)
def test_numbers_give_the_published_count(name):
    config = shape_config(Model(name_or_path=name))
    encoder = config.model_type in ENCODERS
    kind = transformers.AutoModel if encoder else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = kind.from_config(config)
    assert sum(weight.numel() for weight in model.parameters()) == PUBLISHED[name]


def test_every_shipped_model_is_checked():
    files = {file.stem.replace("--", "/") for file in FOLDER.glob("*.json")}
    assert files == PUBLISHED.keys()


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.json")), ids=lambda file: file.stem)
def test_special_tokens_lie_in_the_vocabulary(file):
    numbers = json.loads(file.read_text())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        assert 0 <= numbers.get(name, 0) < numbers["vocab_size"]
