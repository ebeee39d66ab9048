"""The longest sequence of each family runs, and a longer one fails or is refused."""

from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel

from trainer.errors import ConfigError
from trainer.models.positions import check_length, num_positions

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "emb_dim", "dim"), 32),
    **dict.fromkeys(("embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 1),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim", "entity_emb_size"), 32),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 32),
    "num_key_value_heads": 2,
    "rotary_dim": 4,
    "attention_window": [4],
    "vocab_size": 40,
    "type_vocab_size": 2,
    "languages": ["en_XX"],
    "default_language": "en_XX",
    "num_layers": 1,
    "attention_types": [[["global"], 1]],
    "num_heads": 2,  # of GPT-Neo
}
LEARNED = {
    **dict.fromkeys(("bert", "albert", "electra", "distilbert", "deberta-v2", "mobilebert"), 0),
    **dict.fromkeys(("xlm", "fnet", "convbert", "nystromformer", "yoso", "mra"), 0),
    **dict.fromkeys(("gpt2", "openai-gpt", "gpt_neo", "gptj", "ctrl", "opt", "biogpt", "bart"), 0),
    **dict.fromkeys(("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "xmod"), 4),
    **dict.fromkeys(("roberta-prelayernorm", "data2vec-text", "ibert", "luke", "esm"), 4),
    **dict.fromkeys(("longformer", "markuplm"), 4),
    "mpnet": 2,
}
"""By model type, the number of positions before the first token, with 3 as the padding token."""
SEEN = ("llama", "phi", "qwen2", "gemma", "mistral", "gpt_neox", "modernbert", "falcon", "stablelm")
"""Families with rotary positions: they run beyond the length that they were trained on."""


def configured(kind: str, **numbers: Any) -> Any:
    known = CONFIG_MAPPING[kind]()
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    return CONFIG_MAPPING[kind](**{**sizes, "pad_token_id": 3, **numbers})


def runs(model: Any, length: int) -> bool:
    try:
        with torch.no_grad():
            model(input_ids=torch.full((1, length), 7))
    except (IndexError, RuntimeError):
        return False
    return True


@pytest.mark.parametrize("kind", LEARNED)
def test_learned_positions_are_all_used_and_no_more(kind: str) -> None:
    config = configured(kind, max_position_embeddings=24)
    longest = 24 - LEARNED[kind]
    model = AutoModel.from_config(config).eval()
    if kind == "xmod":
        model.set_default_language("en_XX")
    assert num_positions(config) == longest
    assert runs(model, longest)
    assert not runs(model, longest + 1)
    check_length(config, longest)
    with pytest.raises(ConfigError, match=f"{longest + 1} is more than the {longest}") as caught:
        check_length(config, longest + 1)
    assert (caught.value.key, caught.value.value) == ("batch.max_seq_length", longest + 1)
    assert caught.value.hint == f"use {longest} or less"


@pytest.mark.parametrize("kind", SEEN)
def test_rotary_positions_end_at_the_trained_length(kind: str) -> None:
    config = configured(kind, max_position_embeddings=24)
    assert num_positions(config) == 24
    with pytest.raises(ConfigError) as caught:
        check_length(config, 25)
    assert caught.value.hint == "use 24 or less"


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("bloom", {}),
        ("xlnet", {"d_inner": 32, "d_head": 16}),
        ("falcon", {"alibi": True, "max_position_embeddings": 24}),
        ("deberta-v2", {"position_biased_input": False, "max_position_embeddings": 24}),
        ("mamba", {}),
        ("t5", {}),
    ],
)
def test_models_without_positions_have_no_limit(kind: str, numbers: dict[str, Any]) -> None:
    if kind == "deberta-v2":
        numbers = {**numbers, "relative_attention": True, "position_buckets": 8}
    config = configured(kind, **numbers)
    assert num_positions(config) is None
    check_length(config, 10**6)
    if kind != "t5":  # which also wants the tokens of its decoder
        assert runs(AutoModel.from_config(config).eval(), 60)


def test_other_names_and_places_of_the_limit() -> None:
    mpt = configured("mpt", max_seq_len=24)
    assert num_positions(mpt) == 24
    model = AutoModel.from_config(mpt).eval()
    assert runs(model, 24)
    assert not runs(model, 25)
    assert num_positions(CONFIG_MAPPING["led"](max_decoder_position_embeddings=24)) == 24
    nested = CONFIG_MAPPING["gemma3"](text_config={"max_position_embeddings": 24})
    assert num_positions(nested) == 24
    assert num_positions(configured("esm", position_embedding_type="rotary")) == 1026


@pytest.mark.parametrize("unusable", [-1, 0])
def test_an_invalid_limit_is_no_limit(unusable: int) -> None:
    config = configured("gpt_neox")
    config.max_position_embeddings = unusable
    assert num_positions(config) is None
