"""Tokenizers: a model's, one from a path, or one trained on the train split."""

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.models.pretrained.not_loaded import not_loaded
from trainer.recipe.model import Model, TrainedTokenizer

SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
USUAL = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "bos_token": ("<s>",),
    "eos_token": ("</s>", "<|endoftext|>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
    "mask_token": ("[MASK]", "<mask>"),
}
"""Role of a token by its name, for a tokenizer.json without a configuration."""
TRACES = (
    "is_local",
    "local_files_only",
    "max_length",
    "name_or_path",
    "pad_to_multiple_of",
    "stride",
    "truncation_strategy",
)
"""Settings of a tokenizer that record where it was read from and how it was used."""
_UNUSED = re.compile(r"unused|reserved|placeholder", re.IGNORECASE)


def load_tokenizer(model: Model) -> Any:
    """Returns the tokenizer that `model.tokenizer` names, or the model's own if it is null.

    Raises ConfigError if it cannot be loaded.
    """
    from transformers import AutoTokenizer

    name = model.tokenizer or model.name_or_path
    assert isinstance(name, str)
    revision = model.revision if name == model.name_or_path else None
    try:
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                name, revision=revision, trust_remote_code=False
            )
        except TypeError:  # its class expects another kind of tokenizer.json
            tokenizer = _from_tokenizer_json(name, revision)
    except MemoryError:
        raise
    except Exception as error:  # a damaged file can raise anything
        key = "tokenizer" if model.tokenizer else "name_or_path"
        raise not_loaded(f"model.{key}", name, "tokenizer", error) from error
    tokenizer.padding_side = "right"
    # Otherwise the exported tokenizer would name code that is not exported.
    tokenizer.init_kwargs.pop("auto_map", None)
    return tokenizer


def _from_tokenizer_json(name: str, revision: str | None) -> Any:
    """Returns a tokenizer from its tokenizer.json alone; special tokens get roles by name."""
    from transformers import PreTrainedTokenizerFast

    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(name, revision=revision or "main")
    added = {str(token) for token in tokenizer.added_tokens_decoder.values()}
    for role, names in USUAL.items():
        token = next((name for name in names if name in added), None)
        if token is not None and getattr(tokenizer, role) is None:
            setattr(tokenizer, role, token)
    return tokenizer


def train_tokenizer(settings: TrainedTokenizer, texts: Iterable[str], folder: Path) -> None:
    """Trains a tokenizer of at most `vocab_size` pieces on `texts` and writes it into `folder`.

    `texts` is iterated up to two times; equal texts give equal files. Raises ConfigError if
    `vocab_size` is smaller than the number of special tokens and characters.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    special = list(SPECIAL.values())
    if settings.train == "wordpiece":
        tokenizer = _wordpiece({})
        pieces = [*special, *_continuing_characters(tokenizer, texts)]
        trainer = trainers.WordPieceTrainer(
            vocab_size=settings.vocab_size, special_tokens=pieces, show_progress=False
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer = _wordpiece(tokenizer.get_vocab())
        tokenizer.add_special_tokens(special)
    else:
        tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL["unk_token"]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=settings.vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() > settings.vocab_size:
        needed = tokenizer.get_vocab_size()
        raise ConfigError(
            f"model.tokenizer.vocab_size: {settings.vocab_size} does not hold the {needed} "
            "special tokens and characters",
            key="model.tokenizer.vocab_size",
            value=settings.vocab_size,
            hint=f"use {needed} or more",
        )
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(folder)


def _wordpiece(vocabulary: dict[str, int]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=SPECIAL["unk_token"]))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _continuing_characters(tokenizer: Any, texts: Iterable[str]) -> list[str]:
    """Returns the characters inside words as ## pieces, sorted.

    Without them the library would number these pieces in the order of a hash map, which differs
    between runs, and the numbers decide between merges of equal frequency.
    """
    normalise = tokenizer.normalizer.normalize_str
    words = {
        word
        for text in texts
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normalise(text))
    }
    return sorted({f"##{character}" for word in words for character in word[1:]})


def ensure_pad_token(
    tokenizer: Any, vocab_size: int, *, known_pad: int | None = None, kind: str = "existing"
) -> None:
    """Sets the padding token of a tokenizer that has none, or that pads with its end-of-text token.

    Kind `existing` adds no row to a model of `vocab_size` rows. It uses the first of these that
    exists: a token reserved for padding, such as Llama 3's; an unused row; the model's
    `known_pad`; another reserved token; the beginning-of-text token; the unknown token; the
    end-of-text token. Kind `added` uses a token reserved for padding, or adds one beyond the
    model's rows.

    Batches are masked by length, so only classifiers on decoders depend on the padding token: they
    read the last token that is not padding.
    """
    if tokenizer.pad_token is not None and tokenizer.pad_token != tokenizer.eos_token:
        return
    special = {
        index: str(token)
        for index, token in sorted(tokenizer.added_tokens_decoder.items())
        if token.special and index < vocab_size and str(token) != tokenizer.eos_token
    }
    named = [token for token in special.values() if "pad" in token.lower()]
    unused = [token for token in special.values() if _UNUSED.search(token)]
    roles = (tokenizer.bos_token, tokenizer.unk_token)
    roles = [role for role in roles if role in special.values()]
    if named:
        tokenizer.pad_token = named[0]
    elif kind == "added" or num_rows(tokenizer) < vocab_size:
        tokenizer.add_special_tokens({"pad_token": SPECIAL["pad_token"]})
    elif known_pad in special:
        tokenizer.pad_token = special[known_pad]
    elif unused or roles:
        tokenizer.pad_token = [*unused, *roles][0]
    elif tokenizer.eos_token is not None:
        tokenizer.pad_token = tokenizer.eos_token
    else:
        tokenizer.add_special_tokens({"pad_token": SPECIAL["pad_token"]})


def pads_with_a_word(tokenizer: Any) -> bool:
    """Returns whether the padding token is also a token of texts, such as the end-of-text token."""
    roles = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
    return tokenizer.pad_token_id in roles


def num_rows(tokenizer: Any) -> int:
    """Returns the number of rows that an embedding needs for all token ids, which may have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def save_tokenizer(tokenizer: Any, folder: Path, num_positions: int | None = None) -> None:
    """Writes a tokenizer for a model of `num_positions` positions, None if it has no limit.

    The files do not depend on earlier use: padding, truncation and the path that the tokenizer was
    read from are left out.
    """
    saved = copy.deepcopy(tokenizer)
    backend = getattr(saved, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()
    if num_positions is not None:
        saved.model_max_length = min(saved.model_max_length, num_positions)
    for name in TRACES:
        saved.init_kwargs.pop(name, None)
    saved.save_pretrained(folder)


def tokenizer_digest(tokenizer: Any) -> str:
    """Returns everything that decides how text is tokenized. Call it before the first use, which
    changes the settings of truncation and padding."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    pieces = backend.to_str() if backend is not None else sorted(tokenizer.get_vocab().items())
    roles = sorted(tokenizer.special_tokens_map.items())
    return f"{type(tokenizer).__name__} {tokenizer.model_input_names} {roles} {pieces}"
