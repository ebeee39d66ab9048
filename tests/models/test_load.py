"""Loading: new weights depend on the seed, and a model that cannot be loaded is one sentence."""

import shutil
from pathlib import Path
from typing import Any, cast

import bitsandbytes
import pytest
import torch
from support import tiny_models
from support.tiny_models import MODES, SIZES, build_config
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification

from trainer.errors import ConfigError
from trainer.models.load import LoadedModel
from trainer.models.positions import check_length
from trainer.models.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from trainer.recipe.model import Model, TrainedTokenizer

VALUES = {"num_labels": 2}
TEXTS = ["a few words", "that a tokenizer can learn from"]


@pytest.fixture(scope="module")
def tokenizer_folder(trained_tokenizer: Any) -> Path:
    return Path(trained_tokenizer("bpe", 300, TEXTS).name_or_path)


@pytest.fixture(scope="module")
def checkpoint(tokenizer_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Llama classifier with its tokenizer; tests damage only a copy."""
    folder = tmp_path_factory.mktemp("checkpoint")
    load(of("llama", tokenizer_folder)).model.save_pretrained(folder)
    load_tokenizer(of("llama", tokenizer_folder)).save_pretrained(folder)
    return folder


def of(kind: str, tokenizer_folder: Path, **numbers: Any) -> Model:
    return Model(
        architecture={"model_type": kind, **SIZES, **numbers},
        initialization="random",
        tokenizer=str(tokenizer_folder),
    )


def load(
    settings: Model,
    *,
    mode: str = "full",
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
    values: dict[str, Any] = VALUES,
) -> LoadedModel:
    return tiny_models.load(settings, values, mode=mode, dtype=dtype, seed=seed)[0]


def tensors(loaded: LoadedModel) -> dict[str, Tensor]:
    return {k: v for k, v in loaded.model.state_dict().items() if isinstance(v, Tensor)}


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_random_weights_are_those_of_the_seed(tokenizer_folder: Path, kind: str, mode: str) -> None:
    settings = of(kind, tokenizer_folder)
    first = tensors(load(settings, mode=mode, seed=1))
    torch.rand(7)  # whatever happened before
    assert equal(first, tensors(load(settings, mode=mode, seed=1)))
    other = tensors(load(settings, mode=mode, seed=2))
    assert not any(
        torch.equal(first[key], other[key]) for key in first if key.endswith("proj.weight")
    )
    head = {"bert": "classifier.weight", "llama": "score.weight"}[kind]
    assert not torch.equal(first[head], other[head])


@pytest.mark.parametrize("mode", MODES)
def test_pretrained_weights_stay_and_the_new_head_is_of_the_seed(
    checkpoint: Path, tmp_path: Path, mode: str
) -> None:
    trained = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    trained.model.save_pretrained(tmp_path)
    load_tokenizer(Model(name_or_path=str(checkpoint))).save_pretrained(tmp_path)
    settings = Model(name_or_path=str(tmp_path))
    loaded = load(settings, mode=mode, seed=1)
    assert (loaded.head, loaded.fresh) == (("score",), ("score",))
    first, again = tensors(loaded), tensors(load(settings, mode=mode, seed=1))
    other = tensors(load(settings, mode=mode, seed=2))
    assert equal(first, again)
    assert [key for key in first if not torch.equal(first[key], other[key])] == ["score.weight"]
    assert torch.equal(first["model.embed_tokens.weight"], trained.model.embed_tokens.weight)
    assert first["score.weight"].std() > 0.005


def test_a_whole_checkpoint_has_nothing_fresh(checkpoint: Path) -> None:
    loaded = load(Model(name_or_path=str(checkpoint)), seed=5)
    trained = AutoModelForSequenceClassification.from_pretrained(checkpoint)
    assert (loaded.head, loaded.fresh) == (("score",), ())
    assert equal(tensors(loaded), trained.state_dict())


def test_random_initialisation_takes_only_the_shape_from_a_name(checkpoint: Path) -> None:
    settings = Model(name_or_path=str(checkpoint), initialization="random")
    loaded, trained = load(settings, seed=2), load(Model(name_or_path=str(checkpoint)))
    assert {key: value.shape for key, value in tensors(loaded).items()} == {
        key: value.shape for key, value in tensors(trained).items()
    }
    weight = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(tensors(loaded)[weight], tensors(trained)[weight])


@pytest.mark.parametrize(
    ("mode", "dtype", "expected"),
    [
        ("full", torch.bfloat16, torch.float32),
        ("head_only", torch.bfloat16, torch.bfloat16),
        ("lora", torch.bfloat16, torch.bfloat16),
        ("lora", torch.float16, torch.float16),
        ("lora", torch.float32, torch.float32),
    ],
)
@pytest.mark.parametrize("initialization", ["random", "pretrained"])
def test_weights_that_will_be_frozen_are_of_the_precision(
    checkpoint: Path, initialization: str, mode: str, dtype: torch.dtype, expected: torch.dtype
) -> None:
    settings = Model(name_or_path=str(checkpoint), initialization=initialization)
    model = load(settings, mode=mode, dtype=dtype).model
    assert {parameter.dtype for parameter in model.parameters()} == {expected}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_4bit_weights_are_double_quantised_nf4_in_bytes(
    checkpoint: Path, dtype: torch.dtype
) -> None:
    model = load(Model(name_or_path=str(checkpoint)), mode="qlora", dtype=dtype).model
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14
    for layer in layers:
        assert layer.compute_dtype == dtype
        assert layer.weight.dtype == torch.uint8  # DeepSpeed would cast a float storage by value
        assert (layer.weight.quant_state.quant_type, layer.weight.quant_state.nested) == (
            "nf4",
            True,
        )
        assert not layer.support_avx512bf16_for_cpu
    others = {p.dtype for p in model.parameters() if p.dtype != torch.uint8}
    assert others == {dtype}


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("hiden_size", 32, "did you mean hidden_size?"),
        ("num_layers", 2, "did you mean num_hidden_layers?"),
        ("model_type", "brt", "did you mean bert?"),
        ("model_type", "zzzzzz", None),
    ],
)
def test_an_unknown_number_names_the_nearest(
    tokenizer_folder: Path, name: str, value: object, hint: str | None
) -> None:
    settings = of("bert", tokenizer_folder, **{name: value})
    with pytest.raises(ConfigError) as caught:
        build_config(settings, VALUES, load_tokenizer(settings))
    error = caught.value
    assert (error.key, error.value, error.hint) == (f"model.architecture.{name}", value, hint)
    words = "transformers has no" if name == "model_type" else "unknown in the configuration of a"
    assert words in str(error)


@pytest.mark.parametrize(
    ("numbers", "sentence"),
    [
        ({"num_attention_heads": 5}, r"32.* attention heads \(5\)"),
        ({"hidden_size": "32"}, r"'hidden_size' expected int, got str"),
        ({"num_hidden_layers": 2.5}, r"'num_hidden_layers' expected int, got float"),
        ({"hidden_act": "gelo"}, "gelo"),
    ],
)
def test_impossible_numbers_are_refused(
    tokenizer_folder: Path, numbers: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ConfigError, match=sentence) as caught:
        load(of("bert", tokenizer_folder, **numbers))
    assert caught.value.key == "model.architecture"
    assert numbers.items() <= cast(dict[str, Any], caught.value.value).items()


def test_an_architecture_fits_its_tokenizer(tokenizer_folder: Path) -> None:
    settings = of("llama", tokenizer_folder)
    tokenizer = load_tokenizer(settings)
    config = build_config(settings, {"num_labels": 3}, tokenizer)
    assert (config.vocab_size, config.num_labels) == (len(tokenizer), 3)
    assert config.pad_token_id == tokenizer.pad_token_id


@pytest.mark.parametrize(
    ("kind", "positions"), [("bert", 64), ("llama", 64), ("phi", 64), ("roberta", 63)]
)
def test_sequences_longer_than_the_positions_are_refused(
    tokenizer_folder: Path, kind: str, positions: int
) -> None:
    settings = of(kind, tokenizer_folder)
    tokenizer = load_tokenizer(settings)
    config = build_config(settings, VALUES, tokenizer)
    assert tokenizer.pad_token_id == 0  # positions of a RoBERTa start after it
    check_length(config, positions)
    with pytest.raises(ConfigError) as caught:
        check_length(config, positions + 1)
    assert (caught.value.key, caught.value.value) == ("batch.max_seq_length", positions + 1)
    assert caught.value.hint == f"use {positions} or less"
    model = load(settings).model
    longest = torch.full((1, positions), 7)
    assert model(input_ids=longest).logits.isfinite().all()
    if kind in ("bert", "roberta"):  # learned positions end there; rotary ones do not
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, positions + 1), 7))


def test_roberta_base_takes_512() -> None:
    numbers = {"max_position_embeddings": 514, "pad_token_id": 1}
    check_length(AutoConfig.for_model("roberta", **numbers), 512)
    with pytest.raises(ConfigError) as caught:
        check_length(AutoConfig.for_model("roberta", **numbers), 513)
    assert caught.value.hint == "use 512 or less"


@pytest.mark.parametrize("key", ["name_or_path", "tokenizer"])
@pytest.mark.parametrize("name", ["nobody/no-such-model", "./no/such/folder", "no-such-folder"])
def test_a_name_that_gives_nothing_names_its_key(checkpoint: Path, key: str, name: str) -> None:
    settings = Model(**{"name_or_path": str(checkpoint), key: name})
    with pytest.raises(ConfigError, match=rf"^model\.{key}: no tokenizer of {name}: ") as caught:
        load(settings)
    assert (caught.value.key, caught.value.value) == (f"model.{key}", name)
    assert "not in the cache" in str(caught.value)
    assert "trainer prepare" in str(caught.value.hint)


def test_a_hub_name_without_a_configuration_names_its_key(tokenizer_folder: Path) -> None:
    settings = Model(name_or_path="nobody/no-such-model", tokenizer=str(tokenizer_folder))
    with pytest.raises(ConfigError, match="no configuration of") as caught:
        load(settings)
    assert (caught.value.key, caught.value.value) == ("model.name_or_path", "nobody/no-such-model")


@pytest.mark.parametrize(
    ("file", "content", "what"),
    [
        ("tokenizer.json", None, "tokenizer"),
        ("tokenizer.json", b"{", "tokenizer"),
        ("config.json", None, "configuration"),
        ("config.json", b"{", "configuration"),
        ("model.safetensors", None, "weights"),
        ("model.safetensors", b"cut off", "weights"),
    ],
)
def test_an_incomplete_folder_says_what_is_missing(
    checkpoint: Path,
    tokenizer_folder: Path,
    tmp_path: Path,
    file: str,
    content: bytes | None,
    what: str,
) -> None:
    folder = tmp_path / "spoilt"
    shutil.copytree(checkpoint, folder)
    (folder / file).unlink()
    if content is not None:
        (folder / file).write_bytes(content)
    tokenizer = None if what == "tokenizer" else str(tokenizer_folder)
    with pytest.raises(ConfigError, match=f"has no {what} that can be loaded") as caught:
        load(Model(name_or_path=str(folder), tokenizer=tokenizer))
    assert (caught.value.key, caught.value.value) == ("model.name_or_path", str(folder))


@pytest.mark.parametrize("mode", MODES)
def test_a_head_for_another_number_of_labels_is_refused(checkpoint: Path, mode: str) -> None:
    with pytest.raises(ConfigError, match=r"score\.weight of .* \[2, 32\] .* \[3, 32\]") as caught:
        load(Model(name_or_path=str(checkpoint)), mode=mode, values={"num_labels": 3})
    assert (caught.value.key, caught.value.value) == ("model.name_or_path", str(checkpoint))
    assert str(caught.value.hint).startswith("give as many labels")


def test_a_tokenizer_of_another_vocabulary_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    words = [f"{letter}{number}" for letter in "abcdefgh" for number in range(60)]
    train_tokenizer(TrainedTokenizer(train="bpe", vocab_size=400), words, tmp_path)
    settings = Model(name_or_path=str(checkpoint), tokenizer=str(tmp_path))
    size = len(load_tokenizer(settings))
    rows = AutoConfig.from_pretrained(checkpoint).vocab_size
    assert size > rows
    with pytest.raises(ConfigError, match=rf"has {size} tokens and the model {rows}") as caught:
        load(settings)
    assert (caught.value.key, caught.value.value) == ("model.tokenizer", size)


def test_a_tokenizer_of_one_token_more_is_refused(tokenizer_folder: Path) -> None:
    rows = len(load_tokenizer(of("llama", tokenizer_folder))) - 1
    with pytest.raises(ConfigError) as caught:
        load(of("llama", tokenizer_folder, vocab_size=rows))
    assert (caught.value.key, caught.value.value) == ("model.tokenizer", rows + 1)
    assert "model.architecture.vocab_size" in str(caught.value.hint)
