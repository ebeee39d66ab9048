"""A GGUF file holds the weights, the settings and the vocabulary of an exported model."""

import json
import re
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
import transformers
from support.export_families import save_base
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerFast
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from trainer.errors import CheckpointError, ConfigError
from trainer.exports import gguf as writer
from trainer.exports.extras import needs
from trainer.exports.gguf import rope_factors, write_gguf
from trainer.exports.gguf_vocabulary import BYTE, CONTROL, LLAMA3_PATTERN, NORMAL, UNUSED

TEXTS = ["the old house stood in the old town", "12 houses, and it's the 3rd", "no end"] * 20
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def save_model(folder: Path, kind: str = "llama", **settings: Any) -> Path:
    """Saves a tiny decoder with a byte-level tokenizer, as an export has them."""
    save_base(kind, folder, "AutoModelForCausalLM")
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    values = {"vocab_size": len(tokenizer) + 3, "eos_token_id": 1, **settings}
    for name, value in values.items():
        setattr(config, name, value)
    torch.manual_seed(1)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


def byte_level(words: Any, normalizer: Any = None) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder, raw.normalizer = words, decoders.ByteLevel(), normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|begin|>", "<|end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    raw.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|begin|>", eos_token="<|end|>", pad_token="<|end|>"
    )


def field(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


@pytest.mark.parametrize("kind", ["llama", "mistral", "qwen2"])
def test_the_file_has_the_numbers_of_the_model(kind: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", kind)
    notes = write_gguf(folder, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    name = "qwen2" if kind == "qwen2" else "llama"
    assert field(reader, "general.architecture") == name
    assert field(reader, f"{name}.attention.head_count_kv") == 2
    assert field(reader, f"{name}.rope.freq_base") == 10000.0
    assert field(reader, "tokenizer.ggml.pre") == "gpt-2"
    assert field(reader, "tokenizer.ggml.eos_token_id") == 1
    kinds, tokens = (field(reader, f"tokenizer.ggml.{key}") for key in ("token_type", "tokens"))
    assert kinds[:3] == [CONTROL, CONTROL, NORMAL]
    assert kinds[-3:] == [UNUSED] * 3
    assert tokens[0] == "<|begin|>"
    windowed = kind == "mistral"
    assert ("llama.cpp attends to all earlier tokens" in " ".join(notes)) == windowed


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_keep_their_type_and_vectors_are_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    kind = transformers.AutoModelForCausalLM
    kind.from_pretrained(folder, dtype=dtype).save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf")
    types = gguf.GGMLQuantizationType
    expected = {torch.bfloat16: types.BF16, torch.float16: types.F16}[dtype]
    for tensor in gguf.GGUFReader(tmp_path / "model.gguf").tensors:
        assert tensor.tensor_type == (types.F32 if len(tensor.shape) == 1 else expected)


def test_weights_that_differ_are_found_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path / "model")
    monkeypatch.setattr(writer, "_permuted", lambda weight, _: weight)
    with pytest.raises(CheckpointError, match=r"does not hold the weights .*self_attn"):
        write_gguf(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_positions_of_llama_3_are_scaled_as_in_transformers(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", rope_parameters=LLAMA3)
    write_gguf(folder, tmp_path / "model.gguf")
    tensors = {item.name: item for item in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    written = torch.from_numpy(tensors["rope_freqs.weight"].data.copy())
    config = transformers.AutoConfig.from_pretrained(folder)
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 1 / 500000.0 ** (torch.arange(0, 8, 2) / 8)
    torch.testing.assert_close(plain / written, scaled)
    assert len(set(rope_factors(LLAMA3, 64).tolist())) > 3  # short, long and those between


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), "gpt-2"),
        (
            pre_tokenizers.Sequence(
                [
                    pre_tokenizers.Digits(individual_digits=True),
                    pre_tokenizers.ByteLevel(add_prefix_space=False),
                ]
            ),
            "smollm",
        ),
    ],
)
def test_how_texts_are_cut_has_the_name_of_llama_cpp(words: Any, name: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    byte_level(words).save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf")
    assert field(gguf.GGUFReader(tmp_path / "model.gguf"), "tokenizer.ggml.pre") == name


def changed(folder: Path, **settings: Any) -> None:
    """Changes settings of the exported tokenizer."""
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | settings), "utf-8")


def split(pattern: str) -> dict[str, Any]:
    parts = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated"}
    bytes_ = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [parts | {"invert": False}, bytes_]}


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"normalizer": {"type": "Lowercase"}}, "changes texts by Lowercase"),
        ({"pre_tokenizer": {"type": "WhitespaceSplit"}}, "cuts texts into words in a way"),
        # Llama 3 looks up whole words first, which the model of this tokenizer does not.
        ({"pre_tokenizer": split(LLAMA3_PATTERN)}, "treats whole words in another way"),
        ({"pre_tokenizer": split(r"\p{L}+")}, "cuts texts into words in a way"),
        ({"model": {"type": "WordPiece"}}, "is a WordPiece model"),
    ],
)
def test_a_tokenizer_that_llama_cpp_would_not_follow_is_refused(
    settings: dict[str, Any], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_model(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    changed(folder, **settings)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda _: tokenizer)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        write_gguf(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").unlink()
    with pytest.raises(ConfigError, match="has no token that ends a text"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([f"<more {index}>" for index in range(4)])  # the model has room for 3
    tokenizer.save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"its tokenizer has \d+ tokens, and the model \d+"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_a_tokenizer_without_a_list_of_tokens_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    (folder / "tokenizer.json").unlink()
    transformers.ByT5Tokenizer().save_pretrained(folder)
    with pytest.raises(ConfigError, match=r"has no tokenizer\.json"):
        write_gguf(folder, tmp_path / "model.gguf")


@pytest.mark.parametrize(
    ("template", "begins", "ends"),
    [
        ("$A <|end|>", False, True),
        ("<|begin|> $A", True, False),
        ("<|begin|> $A <|end|>", True, True),
    ],
)
def test_tokens_around_a_text_are_those_of_the_tokenizer(
    template: str, begins: bool, ends: bool, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model")
    tokenizer = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=template, special_tokens=[("<|begin|>", 0), ("<|end|>", 1)]
    )
    tokenizer.save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    found = [field(reader, f"tokenizer.ggml.add_{name}_token") for name in ("bos", "eos")]
    assert found == [begins, ends]


def test_characters_that_only_the_tokenizer_composes_are_a_note(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    byte_level(words, normalizers.NFC()).save_pretrained(folder)
    assert "NFC" in write_gguf(folder, tmp_path / "model.gguf")[0]


@pytest.mark.parametrize(
    ("kind", "settings", "sentence"),
    [
        ("gpt2", {}, "a GPT2LMHeadModel cannot be written"),
        ("llama", {"attention_bias": True}, "have biases (attention_bias)"),
        ("llama", {"rope_parameters": {**LLAMA3, "rope_type": "yarn"}}, "is scaled by yarn"),
    ],
)
def test_a_model_that_llama_cpp_would_compute_otherwise_is_refused(
    kind: str, settings: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "model", kind, **settings)
    with pytest.raises(ConfigError, match=re.escape(sentence)):
        write_gguf(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    kind = transformers.AutoModelForSequenceClassification
    kind.from_config(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    with pytest.raises(ConfigError, match="a LlamaForSequenceClassification cannot be written"):
        write_gguf(folder, tmp_path / "model.gguf")


def test_spaces_of_sentencepiece_and_the_order_of_merges_are_kept(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model")
    raw = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=290, special_tokens=special[:3], show_progress=False)
    raw.train_from_iterator(TEXTS, trainer)
    raw.add_tokens(special[3:])
    settings = json.loads(raw.to_str())
    size = len(settings["model"]["vocab"])
    for index, text in enumerate(special[3:]):
        settings["model"]["vocab"][text] = size + index
    settings["added_tokens"] = settings["added_tokens"][:3]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(settings)),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )
    tokenizer.save_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.vocab_size = len(tokenizer)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    write_gguf(folder, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert field(reader, "tokenizer.ggml.model") == "llama"
    assert field(reader, "tokenizer.ggml.add_space_prefix")
    tokens, kinds, scores = (
        field(reader, f"tokenizer.ggml.{key}") for key in ("tokens", "token_type", "scores")
    )
    assert kinds[tokens.index("<0x41>")] == BYTE
    first, second = ("".join(merge) for merge in settings["model"]["merges"][:2])
    assert scores[tokens.index(first)] > scores[tokens.index(second)]


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ConfigError, match=r"--gguf needs the package .*pip install 'trainer\[gg"):
        needs("a_package_that_nobody_has", "--gguf", "gguf")
