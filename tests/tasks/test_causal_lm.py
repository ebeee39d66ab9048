"""Causal language modelling: blocks, packing, and what is learned of an instruction."""

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from support.tiny_models import build_config, random_model
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from trainer.data.encoded import PreparedSplit, encode_once
from trainer.errors import ConfigError
from trainer.models.decoder import is_decoder
from trainer.models.output_layer import install_output_layer
from trainer.models.tokenizers.tokenizer import load_tokenizer
from trainer.recipe.schema import Recipe
from trainer.tasks.causal_lm.packed import apart, check_packing
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.generation.settings import GenerationSettings
from trainer.tasks.recipe import parse_recipe

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
    },
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128,
             "initializer_range": 0.1, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "phi": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 128,
        "initializer_range": 0.1,
    },
}  # fmt: skip
ROWS = [
    {
        "instruction": f"say the number {index} {'again ' * (index % 5)}",
        "output": " ".join(str(digit) for digit in range(index % 9 + 1)),
    }
    for index in range(30)
]
TEXTS = [f"{row['instruction']} {row['output']}" for row in ROWS]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))


def build(name: str, folder: Path, **task: Any) -> tuple[CausalLM, Any, Any]:
    """Returns the task, its tokenizer and a model's configuration."""
    settings = random_model(name, ARCHITECTURES[name], TEXTS, folder / name)
    tokenizer = load_tokenizer(settings)
    model_config = build_config(settings, {"use_cache": False}, tokenizer)
    made = CausalLM.build(recipe_of(**task), given(), tokenizer, model_config)
    return made, tokenizer, model_config


def recipe_of(**task: Any) -> Recipe:
    templates = {"prompt": "{instruction}:", "completion": "{output}"}
    return parse_recipe(
        {
            "model": {"name_or_path": "llama"},
            "task": {"name": "causal_lm", **templates, **task},
            "data": {"source": {"builtin": "instructions"}},
            "batch": {"max_seq_length": 96},
        },
        "test",
    )


def given() -> datasets.Dataset:
    return datasets.Dataset.from_list(ROWS)


def encoded(task: CausalLM, rows: datasets.Dataset, key: str) -> PreparedSplit:
    return encode_once(key, lambda summary: task.encode(rows, summary))


def loss_and_gradient(task: CausalLM, model: Any, split: PreparedSplit, size: int) -> Any:
    """Returns loss, count and gradient over all examples, `size` at a time."""
    model.zero_grad()
    total, count = torch.zeros(2, 1, dtype=torch.float64)
    for ids in np.array_split(np.arange(len(split)), -(-len(split) // size)):
        batch = task.collate(split, ids, epoch=1)
        sums, _ = task.loss_sums(model, batch.inputs, batch.targets)
        total, count = total + sums.double(), count + batch.counts
    (total / count).sum().backward()
    gradient = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return (total / count).item(), count.item(), gradient


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_is_unpacked(name, attention, tmp_path):
    task, _, model_config = build(name, tmp_path)
    packed_task, _, _ = build(name, tmp_path, packing=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(model_config, attn_implementation=attention).train()
    install_output_layer(model)
    alone = encoded(task, given(), "alone")
    packed = encoded(packed_task, given(), "packed")
    assert len(packed) < len(alone) / 2
    assert packed.lengths.sum() == alone.lengths.sum()
    loss, count, gradient = loss_and_gradient(task, model, alone, size=1)
    for size in (1, 3):
        other, others, parts = loss_and_gradient(packed_task, model, packed, size)
        assert others == count
        assert other == pytest.approx(loss, abs=1e-6)
        assert max(float(one.abs().max()) for one in gradient.values()) > 1e-3
        for key, one in gradient.items():
            torch.testing.assert_close(parts[key], one, rtol=1e-5, atol=1e-6, msg=key)


def test_without_the_mask_packed_examples_would_see_each_other(tmp_path):
    """The comparison above can fail: a causal mask alone gives another loss."""
    task, _, model_config = build("gpt2", tmp_path, packing=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(model_config).eval()
    install_output_layer(model)
    split = encoded(task, given(), "packed")
    batch = task.collate(split, np.arange(1), epoch=0)
    with torch.no_grad():
        apart_, _ = task.loss_sums(model, batch.inputs, batch.targets)
        del batch.inputs["position_ids"]
        leaking, _ = task.loss_sums(model, batch.inputs, batch.targets)
    assert abs(float(apart_ - leaking)) > 1e-2


def test_the_mask_is_causal_within_each_example():
    positions = torch.tensor([[0, 1, 2, 0, 1, 0]])
    mask = apart(positions, torch.float32)
    seen = (mask[0, 0] == 0).int().tolist()
    assert seen == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 0, 0],
        [0, 0, 0, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "t5", "xlnet"])
def test_a_model_that_sees_the_token_it_predicts_is_refused(kind, packing, tmp_path):
    settings = random_model("llama", ARCHITECTURES["llama"], TEXTS, tmp_path)
    with pytest.raises(ConfigError, match=f"a {kind} is not a causal language model") as caught:
        CausalLM.build(
            recipe_of(packing=packing), given(), load_tokenizer(settings), CONFIG_MAPPING[kind]()
        )
    assert (caught.value.key, caught.value.value) == ("task.name", "causal_lm")


@pytest.mark.parametrize("kind", ["bert", "bert-generation"])
def test_an_encoder_that_is_made_a_decoder_sees_only_the_past(kind):
    numbers = {**ARCHITECTURES["phi"], "vocab_size": 30}
    tokens = torch.arange(2, 12)[None]
    for made_decoder in (True, False):
        torch.manual_seed(0)
        model_config = CONFIG_MAPPING[kind](is_decoder=made_decoder, **numbers)
        assert is_decoder(model_config) == made_decoder
        model = AutoModelForCausalLM.from_config(model_config).eval()
        with torch.no_grad():
            one, other = (model(input_ids=ids).logits for ids in (tokens, tokens[:, :5]))
        assert torch.allclose(one[:, :5], other, atol=1e-4) == made_decoder


@pytest.mark.parametrize(
    ("kind", "numbers", "reason"),
    [
        ("bloom", {}, "takes no position_ids"),
        ("falcon", {"alibi": True}, "knows positions by their distance"),
        ("jamba", {}, "has layers that take no mask"),
        ("recurrent_gemma", {}, "has layers that take no mask"),
        ("lfm2", {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2}, "no mask"),
        ("llama4_text", {}, "has layers that take no mask"),
        ("mistral", {"sliding_window": 95}, "looks back 95 tokens only and .*max_seq_length is 96"),
        ("gemma2", {"sliding_window": 32}, "looks back 32 tokens"),
    ],
)
def test_packing_is_refused_where_examples_would_see_each_other(kind, numbers, reason):
    with pytest.raises(ConfigError, match=reason) as caught:
        check_packing(CONFIG_MAPPING[kind](**numbers), 96)
    assert (caught.value.key, caught.value.value) == ("task.packing", True)
    assert caught.value.hint == "set it to false"


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("llama", {}),
        ("falcon", {}),
        ("mistral", {"sliding_window": 96}),
        ("gemma2", {"sliding_window": 4096}),
        ("qwen2", {"sliding_window": 32}),  # named, and not used
    ],
)
def test_packing_is_allowed_where_the_mask_is_all_that_decides(kind, numbers):
    check_packing(CONFIG_MAPPING[kind](**numbers), 96)


def test_every_token_of_a_text_but_the_first_is_predicted_once(tmp_path):
    task, tokenizer, _ = build("llama", tmp_path, prompt=None, completion=None)
    rows = datasets.Dataset.from_dict({"text": TEXTS * 40})  # more rows than are read at a time
    split = encoded(task, rows, "blocks")
    begin, end = [tokenizer.cls_token_id], [tokenizer.sep_token_id]
    whole = [
        token
        for text in rows["text"]
        for token in [*begin, *tokenizer(text, add_special_tokens=False)["input_ids"], *end]
    ]
    blocks = [split.ragged("input_ids")[index].tolist() for index in range(len(split))]
    assert {len(block) for block in blocks[:-1]} == {96}
    assert blocks[0] + [token for block in blocks[1:] for token in block[1:]] == whole
    batch = task.collate(split, np.arange(len(split)), epoch=1)
    assert batch.counts.tolist() == [len(whole) - 1]
    predicted: list[Tensor] = [row[row != -100] for row in batch.targets["labels"]]
    assert torch.cat(predicted).tolist() == whole[1:]


def test_only_answers_and_their_end_are_learned(tmp_path):
    task, tokenizer, _ = build("llama", tmp_path)
    split = encoded(task, given(), "one")
    batch = task.collate(split, np.array([7]), epoch=1)
    labels, tokens = batch.targets["labels"][0], batch.inputs["input_ids"][0]
    learned = labels[labels != -100]
    assert tokenizer.decode(learned[:-1]).strip() == ROWS[7]["output"]
    assert int(learned[-1]) == tokenizer.sep_token_id
    prompt = tokenizer.decode(tokens[: len(tokens) - len(learned)], skip_special_tokens=True)
    assert prompt.strip() == f"{ROWS[7]['instruction']}:"


def test_half_precision_keeps_packed_examples_apart(tmp_path):
    task, _, model_config = build("llama", tmp_path, packing=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(model_config).eval()
    install_output_layer(model)
    batch = task.collate(encoded(task, given(), "packed"), np.arange(2), epoch=0)
    with torch.no_grad():
        full, _ = task.loss_sums(model, batch.inputs, batch.targets)
        with torch.autocast("cpu", torch.bfloat16):
            autocast, _ = task.loss_sums(model, batch.inputs, batch.targets)
        half, _ = task.loss_sums(model.to(torch.bfloat16), batch.inputs, batch.targets)
    assert float(autocast) == pytest.approx(float(full), rel=1e-2)
    assert float(half) == pytest.approx(float(full), rel=1e-2)


def test_generation_answers_a_sample_that_is_always_the_same(tmp_path):
    task, _, model_config = build("llama", tmp_path, generation={"num_examples": 5})
    model = AutoModelForCausalLM.from_config(model_config).eval()
    split = encoded(task, given(), "one")
    ids = task.sample(split)
    assert len(set(ids.tolist())) == 5
    assert ids.tolist() == task.sample(split).tolist()
    records = task.generate(model, split, ids)
    assert [record["id"] for record in records] == ids.tolist()
    for record in records:
        assert record["reference"] == ROWS[record["id"]]["output"]
        assert record["prompt"].startswith("say the number")
    assert GenerationSettings().num_examples == 64
