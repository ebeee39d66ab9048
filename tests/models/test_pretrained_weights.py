"""All weights of a checkpoint are loaded into the backbone, or an error names what is missing."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoConfig

from trainer.errors import ConfigError
from trainer.models.load import LoadedModel, ModelSpec, load_model
from trainer.models.span_head import ensure_span_head
from trainer.recipe.model import Model

SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "dim", "embedding_size", "word_embed_proj_dim"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads"), 2),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "hidden_dim"), 32),
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 40,
    "max_position_embeddings": 24,
}
ENCODERS = ("bert", "roberta", "distilbert", "electra", "albert", "deberta-v2", "xlm-roberta")
DECODERS = ("gpt2", "gpt_neox", "opt", "bloom", "llama", "phi", "qwen2", "gemma", "mistral")
CLASSIFIER, SPAN = "AutoModelForSequenceClassification", "AutoModelForQuestionAnswering"
MASKED, CAUSAL = "AutoModelForMaskedLM", "AutoModelForCausalLM"
SLOW = [
    pytest.param(kind, marks=pytest.mark.slow)
    for kind in (*ENCODERS, *DECODERS)
    if kind not in ("bert", "albert", "gpt_neox", "llama")
]
Weights = dict[str, Tensor]


def configured(kind: str, **numbers: Any) -> Any:
    known = CONFIG_MAPPING[kind]()
    sizes = {key: value for key, value in SIZES.items() if hasattr(known, key)}
    return CONFIG_MAPPING[kind](**{**sizes, "pad_token_id": 1, **numbers})


def save(folder: Path, kind: str, auto_model: str, **numbers: Any) -> Any:
    """Saves a random model in the hub's format, and returns it."""
    config = configured(kind, **numbers)
    if auto_model == SPAN:
        ensure_span_head(config)
    torch.manual_seed(3)
    model = getattr(transformers, auto_model).from_config(config)
    model.save_pretrained(folder)
    return model


def load(folder: Path, auto_model: str = CLASSIFIER, *, mode: str = "full") -> LoadedModel:
    stored = AutoConfig.from_pretrained(folder)
    stored.num_labels = 2
    if auto_model == SPAN:
        ensure_span_head(stored)
    return load_model(
        ModelSpec(
            Model(name_or_path=str(folder)),
            stored,
            auto_model=auto_model,
            tokenizer_size=40,
            mode=mode,
            frozen_dtype=torch.float32,
            seed=1,
        )
    )


def rewrite(folder: Path, change: Callable[[Weights], Weights]) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def equal_backbones(one: Any, other: Any) -> bool:
    first, second = one.base_model.state_dict(), other.base_model.state_dict()
    shared = [key for key in first if key in second and "pooler" not in key]
    return len(shared) > 10 and all(torch.equal(first[key], second[key]) for key in shared)


@pytest.mark.parametrize("kind", ["bert", "albert", "gpt_neox", "llama", *SLOW])
def test_a_sound_checkpoint_of_any_head_loads_for_every_task(kind: str, tmp_path: Path) -> None:
    language_model = MASKED if kind in ENCODERS else CAUSAL
    tasks = (CLASSIFIER, SPAN, language_model)
    for saved in ("AutoModel", *tasks):
        folder = tmp_path / saved
        whole = save(folder, kind, saved)
        for task in tasks:
            loaded = load(folder, task)
            assert equal_backbones(whole, loaded.model), (saved, task)
            assert [note for note in loaded.notes if "by position" not in note] == []
            assert [name for name in loaded.fresh if not name.startswith(loaded.head)] in (
                [],
                *([[f"{kind}.pooler{end}"] for end in ("", ".dense")]),
            )
            if saved == task:
                assert loaded.fresh == ()


WRAPPERS = [
    "module.",
    "model.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "base_model.model.",
    "module._orig_mod.",
    "_forward_module.module.model.",
]


@pytest.mark.parametrize(
    ("prefix", "mode"), [*((one, "full") for one in WRAPPERS), ("module.", "qlora")]
)
def test_prefixes_of_wrappers_are_removed_with_a_note(
    prefix: str, mode: str, tmp_path: Path
) -> None:
    for kind in ("llama", "bert"):
        folder = tmp_path / kind
        save(folder, kind, CAUSAL)
        sound = load(folder, mode=mode)
        rewrite(folder, lambda weights: {f"{prefix}{key}": one for key, one in weights.items()})
        wrapped = load(folder, mode=mode)
        kept = {k: v for k, v in sound.model.state_dict().items() if isinstance(v, Tensor)}
        found = wrapped.model.state_dict()
        assert all(torch.equal(one, found[key]) for key, one in kept.items())
        assert wrapped.fresh == sound.fresh
        # Of one prefix of its own too many transformers takes care itself.
        mentions = [prefix.split(".")[-2] in note for note in wrapped.notes]
        assert mentions == ([] if (kind, prefix) == ("llama", "model.") else [True])


def test_wrappers_inside_of_names_and_around_a_bare_backbone(tmp_path: Path) -> None:
    whole = save(tmp_path, "bert", "AutoModel")

    def wrap(weights: Weights) -> Weights:
        inside = "encoder.layer.0._fsdp_wrapped_module._checkpoint_wrapped_module."
        return {
            f"bert.module.{key.replace('encoder.layer.0.', inside)}": one
            for key, one in weights.items()
        }

    rewrite(tmp_path, wrap)
    assert equal_backbones(whole, load(tmp_path).model)


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {key: one for key, one in weights.items() if part not in key}


def renamed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{key}": one for key, one in weights.items()}


DAMAGES: dict[str, tuple[Callable[[Weights], Weights], str]] = {
    "layer absent": (without("layers.1."), r"9 of the 20 weights .* such as model\.layers\.1\."),
    "one weight absent": (without("layers.0.mlp.up_proj"), r"1 of the 20 .*0\.mlp\.up_proj"),
    "embedding absent": (without("embed_tokens"), r"1 of the 20 .*embed_tokens"),
    "nothing": (without(""), r"20 of the 20 "),
    "unknown prefix": (renamed("somebody."), r"20 of the 20 .* begin with somebody\."),
    "one layer more": (
        lambda weights: (
            weights
            | {
                key.replace("layers.1.", "layers.2."): one.clone()
                for key, one in weights.items()
                if "layers.1." in key
            }
        ),
        r"contains 9 weights, such as model\.layers\.2\.",
    ),
    "adapters not merged": (
        lambda weights: (
            {(key.replace("q_proj.", "q_proj.base_layer.")): one for key, one in weights.items()}
            | {"model.layers.0.self_attn.q_proj.lora_A.weight": torch.ones(2, 32)}
        ),
        r"2 of the 20 .*q_proj",
    ),
    "twice": (
        lambda weights: weights | {f"module.{key}": one + 1 for key, one in weights.items()},
        "twice, such as module",
    ),
    "another width": (
        lambda weights: weights | {"model.norm.weight": torch.ones(16)},
        r"model\.norm\.weight of .* \[16\], and should be \[32\] by its config",
    ),
    "another vocabulary": (
        lambda weights: weights | {"model.embed_tokens.weight": torch.ones(50, 32)},
        r"embed_tokens\.weight of .* \[50, 32\], and should be \[40, 32\]",
    ),
    "not finite": (
        lambda weights: weights | {"model.norm.weight": torch.full((32,), torch.nan)},
        r"model\.norm\.weight of .* is not finite",
    ),
    "zeros": (
        lambda weights: {key: torch.zeros_like(one) for key, one in weights.items()},
        "every weight of .* is zero",
    ),
}


@pytest.mark.parametrize("task", [CLASSIFIER, CAUSAL])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_backbone_that_does_not_arrive_is_refused(damage: str, task: str, tmp_path: Path) -> None:
    save(tmp_path, "llama", CAUSAL)
    change, sentence = DAMAGES[damage]
    rewrite(tmp_path, change)
    with pytest.raises(ConfigError, match=rf"^model\.name_or_path: .*{sentence}") as caught:
        load(tmp_path, task)
    assert (caught.value.key, caught.value.value) == ("model.name_or_path", str(tmp_path))
    assert caught.value.hint
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("mode", ["qlora", "int8_lora"])
@pytest.mark.parametrize("damage", ["layer absent", "nothing", "one layer more", "another width"])
def test_quantised_loading_refuses_the_same(damage: str, mode: str, tmp_path: Path) -> None:
    change, sentence = DAMAGES[damage]
    save(tmp_path, "llama", CAUSAL)
    rewrite(tmp_path, change)
    with pytest.raises(ConfigError, match=sentence):
        load(tmp_path, mode=mode)


@pytest.mark.parametrize("mode", ["qlora", "int8_lora"])
def test_a_weight_that_is_not_finite_is_seen_when_it_is_packed(mode: str, tmp_path: Path) -> None:
    save(tmp_path, "llama", CAUSAL)
    key = "model.layers.0.mlp.up_proj.weight"
    rewrite(tmp_path, lambda weights: weights | {key: torch.full_like(weights[key], torch.nan)})
    with pytest.raises(ConfigError, match="is not finite"):
        load(tmp_path, mode=mode)


def test_a_file_of_another_family_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "llama", "llama", CAUSAL)
    save(tmp_path / "bert", "bert", MASKED)
    (tmp_path / "bert" / "model.safetensors").replace(tmp_path / "llama" / "model.safetensors")
    with pytest.raises(ConfigError, match=r"20 of the 20 .* \(it has \d+ others, such as bert\."):
        load(tmp_path / "llama")


def test_some_zero_matrices_give_a_note(tmp_path: Path) -> None:
    save(tmp_path, "llama", CAUSAL)
    key = "model.layers.0.mlp.up_proj.weight"
    rewrite(tmp_path, lambda weights: weights | {key: torch.zeros_like(weights[key])})
    notes = load(tmp_path).notes
    assert len(notes) == 1
    assert key in notes[0]
    assert "1 of the" in notes[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_load(dtype: torch.dtype, tmp_path: Path) -> None:
    whole = save(tmp_path, "llama", CAUSAL).to(dtype).float()
    rewrite(tmp_path, lambda weights: {key: one.to(dtype) for key, one in weights.items()})
    loaded = load(tmp_path)
    assert equal_backbones(whole, loaded.model)
    assert {one.dtype for one in loaded.model.parameters()} == {torch.float32}


def test_buffers_of_old_checkpoints_are_passed_over(tmp_path: Path) -> None:
    save(tmp_path / "gpt2", "gpt2", CAUSAL)
    mask = {"transformer.h.0.attn.bias": torch.ones(1, 1, 4, 4).tril()}
    rewrite(tmp_path / "gpt2", lambda weights: weights | mask)
    assert load(tmp_path / "gpt2").notes == ()
    save(tmp_path / "bert", "bert", MASKED)
    positions = {"bert.embeddings.position_ids": torch.arange(24)[None]}
    rewrite(tmp_path / "bert", lambda weights: weights | positions)
    assert load(tmp_path / "bert").notes == ()
    save(tmp_path / "llama", "llama", CAUSAL)
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    rewrite(tmp_path / "llama", lambda weights: weights | frequencies)
    assert load(tmp_path / "llama").notes == ()


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_half_a_pooler_and_half_a_head_are_refused(kind: str, tmp_path: Path) -> None:
    save(tmp_path, kind, CLASSIFIER)
    weights = load_file(tmp_path / "model.safetensors")
    last = [key for key in weights if key.startswith("classifier") and key.endswith("bias")][-1]
    rewrite(tmp_path, without(last))
    with pytest.raises(ConfigError, match=rf"lacks {last} but has the rest") as caught:
        load(tmp_path)
    assert "model.fresh_head: true" in str(caught.value.hint)
    if kind == "bert":
        save(tmp_path, kind, CLASSIFIER)
        rewrite(tmp_path, without("pooler.dense.bias"))
        with pytest.raises(ConfigError, match=r"1 of the .* bert\.pooler\.dense\.bias"):
            load(tmp_path)


def test_a_head_of_another_task_is_replaced(tmp_path: Path) -> None:
    save(tmp_path, "bert", "AutoModelForTokenClassification")
    loaded = load(tmp_path)
    assert loaded.fresh == ("bert.pooler.dense", "classifier")
    assert "BertForTokenClassification, is for another task" in loaded.notes[0]
    stored = load_file(tmp_path / "model.safetensors")
    assert not torch.equal(loaded.model.classifier.weight, stored["classifier.weight"])


def test_weights_of_torch_with_more_around_them_are_refused(tmp_path: Path) -> None:
    whole = save(tmp_path, "llama", CAUSAL)
    (tmp_path / "model.safetensors").unlink()
    torch.save(whole.state_dict(), tmp_path / "pytorch_model.bin")
    assert equal_backbones(whole, load(tmp_path).model)
    torch.save({"state_dict": whole.state_dict()}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=r"20 of the 20 .* such as state_dict"):
        load(tmp_path)


def test_shards_load_and_one_that_is_absent_is_named(tmp_path: Path) -> None:
    whole = save(tmp_path, "llama", CAUSAL)
    (tmp_path / "model.safetensors").unlink()
    whole.save_pretrained(tmp_path, max_shard_size="20KB")
    assert equal_backbones(whole, load(tmp_path).model)
    index = tmp_path / "model.safetensors.index.json"
    shard = tmp_path / json.loads(index.read_text())["weight_map"]["model.norm.weight"]
    save_file(without("model.norm")(load_file(shard)), shard)
    with pytest.raises(ConfigError, match="1 of the 20"):
        load(tmp_path)


def test_layers_that_config_json_leaves_out_are_not_dropped_silently(tmp_path: Path) -> None:
    save(tmp_path, "bert", MASKED)
    file = tmp_path / "config.json"
    values = json.loads(file.read_text())
    for layers, sentence in ((1, "contains 16 weights"), (3, "16 of the")):
        file.write_text(json.dumps(copy.deepcopy(values) | {"num_hidden_layers": layers}))
        with pytest.raises(ConfigError, match=sentence):
            load(tmp_path)
