"""The vocabulary of a GGUF file: tokens, merges, and how llama.cpp must split texts."""

import json
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError

GPT2 = [{"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}]
LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")


def _split(pattern: str) -> list[dict[str, Any]]:
    return [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
        {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
    ]


SPLITTERS = {
    "gpt-2": GPT2,
    "smollm": [{"type": "Digits", "individual_digits": True}, *GPT2],
    "llama-bpe": _split(LLAMA3_PATTERN),
    "qwen2": _split(QWEN2_PATTERN),
}
"""How a byte-level tokenizer cuts a text into words, by llama.cpp's name for it."""
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
"""Kinds of tokens, as GGUF numbers them."""


def add_vocabulary(writer: Any, folder: Path, tokenizer: Any, num_rows: int) -> list[str]:
    """Adds the tokenizer of an exported folder to a GGUF file, and returns notes on it.

    `num_rows` is the number of rows of the model's vocabulary, which may be larger. Raises
    ConfigError for a tokenizer that llama.cpp would not follow.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise refused("its tokenizer has no tokenizer.json, from which its tokens are read")
    settings = json.loads(file.read_text("utf-8"))
    model = settings["model"]
    if model["type"] != "BPE":
        raise refused(f"its tokenizer is a {model['type']} model, and only BPE is written")
    if len(tokenizer) > num_rows:
        raise refused(f"its tokenizer has {len(tokenizer):,} tokens, and the model {num_rows:,}")
    notes = _add_words(writer, settings)
    pieces: dict[str, int] = dict(model["vocab"])
    added = {token["id"]: token for token in settings["added_tokens"]}
    tokens = [f"[unused {index}]" for index in range(num_rows)]
    kinds = [UNUSED] * num_rows
    for text, index in pieces.items():
        tokens[index] = text
        is_byte = model["byte_fallback"] and len(text) == 6 and text.startswith("<0x")
        kinds[index] = BYTE if is_byte else NORMAL
    for index, token in added.items():
        tokens[index] = token["content"]
        kinds[index] = CONTROL if token["special"] else USER_DEFINED
    if tokenizer.unk_token_id is not None and model["byte_fallback"]:
        kinds[tokenizer.unk_token_id] = UNKNOWN
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    if model["byte_fallback"]:
        writer.add_token_scores(_scores(model, tokens))
    return notes + _add_special(writer, folder, tokenizer)


def refused(problem: str) -> ConfigError:
    """Returns the error for a model or a tokenizer that a GGUF file cannot hold."""
    return ConfigError(
        f"--gguf: {problem}", key="--gguf", hint="export it without --gguf, as safetensors"
    )


def _add_words(writer: Any, settings: dict[str, Any]) -> list[str]:
    """Adds how texts are cut: into bytes as by GPT-2, or at spaces as by SentencePiece."""
    model = settings["model"]
    if model["byte_fallback"]:
        writer.add_tokenizer_model("llama")
        writer.add_add_space_prefix(_adds_space(settings))
        return []
    splitter = _splitter(settings)
    if bool(model.get("ignore_merges")) != (splitter == "llama-bpe"):
        raise refused("its tokenizer treats whole words in another way than llama.cpp")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitter)
    writer.add_token_merges([" ".join(_pair(merge)) for merge in model["merges"]])
    normalizer = settings["normalizer"]
    if normalizer is None:
        return []
    if normalizer == {"type": "NFC"}:
        return ["llama.cpp does not compose characters (NFC), which the tokenizer does"]
    raise refused(f"its tokenizer changes texts by {normalizer['type']}, which llama.cpp does not")


def _splitter(settings: dict[str, Any]) -> str:
    found: dict[str, Any] = settings["pre_tokenizer"] or {"type": "nothing"}
    parts: list[dict[str, Any]] = found.get("pretokenizers", [found])
    # Whether offsets leave out spaces changes no token.
    plain = [{key: value for key, value in part.items() if key != "trim_offsets"} for part in parts]
    for name, expected in SPLITTERS.items():
        if plain == expected:
            return name
    raise refused("its tokenizer cuts texts into words in a way that llama.cpp has no name for")


def _adds_space(settings: dict[str, Any]) -> bool:
    """Returns whether a text gets a space before it; raises ConfigError for other changes."""
    words, normalizer = settings["pre_tokenizer"], settings["normalizer"]
    if words is not None and words["type"] == "Metaspace" and normalizer is None:
        return words["prepend_scheme"] != "never"
    space = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    if words is None and normalizer is not None:
        parts = normalizer.get("normalizers", [normalizer])
        if parts in ([{"type": "Prepend", "prepend": "▁"}, space], [space]):
            return len(parts) == 2
    raise refused("its tokenizer changes texts in a way that llama.cpp does not")


def _scores(model: dict[str, Any], tokens: list[str]) -> list[float]:
    """Returns the score of each token: llama.cpp merges the pair with the highest score first."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model["merges"]):
        ranks.setdefault("".join(_pair(merge)), rank)
    return [-float(ranks.get(token, 0)) for token in tokens]


def _pair(merge: Any) -> list[str]:
    """Returns the two parts of a merge, which older files join by a space."""
    return merge.split(" ") if isinstance(merge, str) else list(merge)


def _add_special(writer: Any, folder: Path, tokenizer: Any) -> list[str]:
    """Adds the tokens before, after and between texts, and the chat template."""
    around = tokenizer("")["input_ids"]
    begins = around[:1] == [tokenizer.bos_token_id]
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(around[1 if begins else 0 :][-1:] == [tokenizer.eos_token_id])
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    if tokenizer.pad_token_id is not None:
        writer.add_pad_token_id(tokenizer.pad_token_id)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)
    ends = _ends(folder) or [tokenizer.eos_token_id]
    if ends == [None]:  # llama.cpp would take one of its own
        raise refused("its tokenizer has no token that ends a text")
    writer.add_eos_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    if len(ends) > 2:
        return [f"llama.cpp may not stop at the end tokens {ends[2:]}: a GGUF file names two"]
    return []


def _ends(folder: Path) -> list[int]:
    file = folder / "generation_config.json"
    if not file.is_file():
        return []
    ends = json.loads(file.read_text("utf-8")).get("eos_token_id")
    return [ends] if isinstance(ends, int) else list(ends or [])
