"""Padding does not change predictions; the end token pads only if there is no other token."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from support import tiny_models
from support.tiny_models import SIZES, architectures, random_model, tuning_of
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PhiConfig, PreTrainedTokenizerFast

from trainer.data.encoded import PreparedSplit, encode_once
from trainer.files.cache import content_key
from trainer.models.export import export_model
from trainer.models.tokenizers.tokenizer import (
    ensure_pad_token,
    load_tokenizer,
    pads_with_a_word,
    tokenizer_digest,
)
from trainer.models.tuning import apply_tuning
from trainer.recipe.data import Columns
from trainer.recipe.model import Model
from trainer.tasks.classification.task import Classification

ARCHITECTURES = architectures(initializer_range=0.2)
TEXTS = ["dull", "a film that is long and has no end", "a lovely one", "weak", "good and bad film"]
RESERVED = "<|finetune_right_pad_id|>"


def task(tokenizer: Any) -> Classification:
    return Classification(
        labels=("bad", "good"), columns=Columns(), tokenizer=tokenizer, max_seq_length=32
    )


def load(settings: Model, mode: str = "full") -> tuple[Any, Any]:
    loaded, tokenizer = tiny_models.load(settings, task(None).config_values(), mode=mode)
    tuning = tuning_of(mode, r=4)
    return apply_tuning(
        loaded, tuning, trains_head=True, gradient_checkpointing=False
    ).eval(), tokenizer


def encode(tokenizer: Any, texts: list[str]) -> PreparedSplit:
    rows = Dataset.from_dict({"text": texts, "label": ["bad"] * len(texts)})
    key = content_key(rows=texts, tokenizer=tokenizer_digest(tokenizer))
    return encode_once(key, lambda summary: task(tokenizer).encode(rows, summary))


def logits(model: Any, tokenizer: Any, split: PreparedSplit, ids: list[int]) -> Tensor:
    batch = task(tokenizer).collate(split, np.array(ids), epoch=1)
    assert ("attention_mask" in batch.inputs) == (len(set(split.lengths[ids])) > 1)
    with torch.no_grad():
        return model(**batch.inputs).logits


def assert_padding_changes_nothing(model: Any, tokenizer: Any, texts: list[str]) -> None:
    split = encode(tokenizer, texts)
    assert len(set(split.lengths)) > 1
    together = logits(model, tokenizer, split, list(range(len(texts))))
    alone = torch.cat([logits(model, tokenizer, split, [index]) for index in range(len(texts))])
    assert alone.std(0).min() > 1e-3  # the texts do differ
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_padded_batch_answers_as_each_text_alone(name: str, tmp_path: Path) -> None:
    settings = random_model(name, ARCHITECTURES[name], TEXTS, tmp_path)
    assert_padding_changes_nothing(*load(settings), TEXTS)


def save_base(
    folder: Path, *, pad: str | None, reserved: bool, spare_rows: int, kind: str = "llama"
) -> Model:
    """A causal model like those on the hub: it has no padding token, or pads with the end token."""
    special = ["<s>", "</s>", *([RESERVED] if reserved else [])]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    tokenizer.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token=pad
    )
    wrapped.save_pretrained(folder)
    settings = {"llama": LlamaConfig, "phi": PhiConfig}[kind](
        vocab_size=len(wrapped) + spare_rows, bos_token_id=0, eos_token_id=1, **SIZES
    )
    settings.pad_token_id = None if pad is None else 1
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(settings).save_pretrained(folder)
    return Model(name_or_path=str(folder))


@pytest.mark.parametrize("pad", [None, "</s>"], ids=["no-pad", "pad-is-eos"])
@pytest.mark.parametrize("spare_rows", [0, 1, 8])
@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_an_added_padding_token_grows_the_embedding_only_if_it_must(
    tmp_path: Path, pad: str | None, spare_rows: int, kind: str
) -> None:
    settings = save_base(tmp_path, pad=pad, reserved=False, spare_rows=spare_rows, kind=kind)
    settings = settings.model_copy(update={"pad_token": "added"})
    before = AutoModelForCausalLM.from_pretrained(tmp_path).get_input_embeddings().weight
    model, tokenizer = load(settings)
    assert tokenizer.pad_token == "[PAD]"
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)
    assert model.config.pad_token_id == tokenizer.pad_token_id == len(before) - spare_rows
    after = model.get_input_embeddings().weight
    assert len(after) == model.config.vocab_size == len(before) + (spare_rows == 0)
    assert torch.equal(after[: len(before)], before)
    assert_padding_changes_nothing(model, tokenizer, TEXTS)


@pytest.mark.parametrize("pad", [None, "</s>"], ids=["no-pad", "pad-is-eos"])
@pytest.mark.parametrize("spare_rows", [0, 1])
@pytest.mark.parametrize("kind", ["llama", "phi"])
def test_an_existing_padding_token_adds_no_row(
    tmp_path: Path, pad: str | None, spare_rows: int, kind: str
) -> None:
    settings = save_base(tmp_path, pad=pad, reserved=False, spare_rows=spare_rows, kind=kind)
    before = AutoModelForCausalLM.from_pretrained(tmp_path).get_input_embeddings().weight
    model, tokenizer = load(settings)
    assert tokenizer.pad_token == ("[PAD]" if spare_rows else "<s>")
    assert tokenizer.pad_token_id == model.config.pad_token_id
    after = model.get_input_embeddings().weight
    assert torch.equal(after, before)
    assert model.config.vocab_size == len(before)
    assert_padding_changes_nothing(model, tokenizer, TEXTS)


def test_without_another_token_the_end_token_pads_and_is_still_read_as_text(
    tmp_path: Path,
) -> None:
    """GPT-2 has only one special token: the length of a text tells it from padding."""
    settings = save_base(tmp_path, pad=None, reserved=False, spare_rows=0)
    tokenizer = load_tokenizer(settings)
    tokenizer.bos_token = "</s>"
    ensure_pad_token(tokenizer, len(tokenizer))
    assert tokenizer.pad_token == "</s>"
    assert pads_with_a_word(tokenizer)
    model, _ = load(settings)
    model.config.pad_token_id = tokenizer.pad_token_id
    ends = [*TEXTS, "dull</s>", "a lovely one</s></s>"]
    assert_padding_changes_nothing(model, tokenizer, ends)


@pytest.mark.parametrize(
    ("tokens", "known", "expected"),
    [
        (["<|im_start|>", "<|endoftext|>", "<|reserved_special_token_0|>"], None, 2),
        (["<|im_start|>", "<|endoftext|>"], 1, 1),  # what the model's configuration says
        (["<|im_start|>", "<|endoftext|>"], 77, 1),  # which is none: the unknown token
        (["<|im_start|>", "<|im_sep|>"], None, 3),  # turns are no padding: the end of texts
    ],
)
def test_which_token_pads(tokens: list[str], known: int | None, expected: int) -> None:
    words = {token: index for index, token in enumerate([*tokens, "w", "<|im_end|>"])}
    words |= {"x": len(words)}
    backend = Tokenizer(models.WordLevel(words, unk_token="w"))
    backend.add_special_tokens([*tokens, "<|im_end|>"])
    unknown = "<|endoftext|>" if "<|endoftext|>" in tokens else None
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token=unknown,
    )
    ensure_pad_token(tokenizer, len(tokenizer), known_pad=known)
    assert tokenizer.pad_token_id == expected
    assert len(tokenizer) == len(words)


@pytest.mark.parametrize("pad", [None, "</s>"], ids=["no-pad", "pad-is-eos"])
def test_a_token_reserved_for_padding_is_taken(tmp_path: Path, pad: str | None) -> None:
    settings = save_base(tmp_path, pad=pad, reserved=True, spare_rows=0)
    num_rows = len(load_tokenizer(settings))
    model, tokenizer = load(settings)
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == (RESERVED, 2)
    assert model.config.pad_token_id == 2
    assert len(tokenizer) == len(model.get_input_embeddings().weight) == num_rows
    assert_padding_changes_nothing(model, tokenizer, TEXTS)


def test_a_padding_token_of_its_own_stays(tmp_path: Path) -> None:
    settings = save_base(tmp_path, pad="<s>", reserved=True, spare_rows=0)
    model, tokenizer = load(settings)
    assert (tokenizer.pad_token, model.config.pad_token_id) == ("<s>", 0)


@pytest.mark.parametrize("mode", ["full", "lora", "qlora"])
def test_a_grown_model_is_exported_and_continued(tmp_path: Path, mode: str) -> None:
    settings = save_base(tmp_path / "base", pad="</s>", reserved=False, spare_rows=0)
    settings = settings.model_copy(update={"pad_token": "added"})
    model, tokenizer = load(settings, mode)
    split, ids = encode(tokenizer, TEXTS), list(range(len(TEXTS)))
    expected = logits(model, tokenizer, split, ids)
    export_model(model, tokenizer, tmp_path / "export")
    again, tokenizer_again = load(Model(name_or_path=str(tmp_path / "export")))
    assert tokenizer_again.pad_token_id == tokenizer.pad_token_id
    found = logits(again, tokenizer_again, encode(tokenizer_again, TEXTS), ids)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
