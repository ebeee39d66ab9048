"""Tokenizers that are trained here, and the inputs that they give a model."""

from pathlib import Path
from typing import Any

import pytest

from trainer.errors import ConfigError
from trainer.models.architecture import build_model_config
from trainer.models.tokenizers.tokenizer import (
    load_tokenizer,
    save_tokenizer,
    tokenizer_digest,
    train_tokenizer,
)
from trainer.recipe.model import Model, TrainedTokenizer

KINDS = ("wordpiece", "bpe")
WORDS = [f"{one}{two}{three}" for one in "pqrstv" for two in "aeiou" for three in "lmn"]
TEXTS = [" ".join(WORDS[start : start + 7]) for start in range(len(WORDS))]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def trained(folder: Path, kind: str, vocab_size: int = 300, texts: list[str] = TEXTS) -> Path:
    train_tokenizer(TrainedTokenizer(train=kind, vocab_size=vocab_size), texts, folder)
    return folder


def settings_of(folder: Path, model_type: str, **numbers: Any) -> Model:
    return Model(
        architecture={"model_type": model_type, **numbers},
        initialization="random",
        tokenizer=str(folder),
    )


@pytest.fixture(scope="module", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("tokenizer"), request.param)


@pytest.fixture
def tokenizer(folder: Path) -> Any:
    return load_tokenizer(settings_of(folder, "bert"))


@pytest.mark.parametrize("kind", KINDS)
def test_training_twice_gives_the_same_bytes(tmp_path: Path, kind: str) -> None:
    first, second = trained(tmp_path / "first", kind), trained(tmp_path / "second", kind)
    files = sorted(file.name for file in first.iterdir())
    assert "tokenizer.json" in files
    assert files == sorted(file.name for file in second.iterdir())
    for file in files:
        assert (first / file).read_bytes() == (second / file).read_bytes()
    other = trained(tmp_path / "other", kind, texts=TEXTS[:20])
    assert (first / "tokenizer.json").read_bytes() != (other / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(("kind", "sizes"), [("wordpiece", (64, 100)), ("bpe", (270, 300))])
def test_the_vocabulary_has_the_size_that_was_asked_for(
    tmp_path: Path, kind: str, sizes: tuple[int, int]
) -> None:
    for size in sizes:
        folder = trained(tmp_path / str(size), kind, size)
        tokenizer = load_tokenizer(settings_of(folder, "bert"))
        assert len(tokenizer) == size
        assert max(tokenizer.get_vocab().values()) == size - 1


@pytest.mark.parametrize(
    ("kind", "needed"),
    [("wordpiece", 5 + 2 * 36), ("bpe", 5 + 256)],  # special; first and later letters; bytes
)
def test_a_vocabulary_smaller_than_the_alphabet_is_refused(
    tmp_path: Path, kind: str, needed: int
) -> None:
    alphabet = [f"{chr(97 + index)}{chr(97 + index)}" for index in range(26)]
    digits = [f"{one}{one}" for one in "0123456789"]
    with pytest.raises(ConfigError, match=f"does not hold the {needed} special") as caught:
        trained(tmp_path, kind, 64, [" ".join([*alphabet, *digits])])
    assert (caught.value.key, caught.value.value) == ("model.tokenizer.vocab_size", 64)
    assert caught.value.hint == f"use {needed} or more"


def test_the_special_tokens_come_first(tokenizer: Any) -> None:
    assert tokenizer.convert_ids_to_tokens(range(5)) == SPECIAL
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, tokenizer.eos_token) == (0, 4, None)
    assert tokenizer.padding_side == "right"


def test_texts_and_pairs_are_enclosed_by_special_tokens(tokenizer: Any) -> None:
    one, two = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("pal pel", "til")
    )
    assert one
    assert tokenizer("pal pel")["input_ids"] == [2, *one, 3]
    assert tokenizer("pal pel", "til")["input_ids"] == [2, *one, 3, *two, 3]


def test_a_text_comes_back(tokenizer: Any) -> None:
    ids = tokenizer("pal pel til")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "pal pel til"


def test_unseen_bytes_are_not_the_unknown_token_in_bpe(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(settings_of(trained(tmp_path, "bpe"), "bert"))
    ids = tokenizer("żółć 漢")["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "żółć 漢"


def test_wordpiece_lowers_case(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(settings_of(trained(tmp_path, "wordpiece"), "bert"))
    assert tokenizer("PAL Pel")["input_ids"] == tokenizer("pal pel")["input_ids"]
    assert tokenizer("漢")["input_ids"] == [2, tokenizer.unk_token_id, 3]


@pytest.mark.parametrize(
    ("model_type", "numbers", "has_types"),
    [
        ("bert", {}, True),
        ("bert", {"type_vocab_size": 1}, False),
        ("roberta", {"type_vocab_size": 1}, False),
        ("llama", {}, False),
        ("phi", {}, False),
    ],
)
def test_pairs_have_types_if_the_model_does(
    folder: Path, tokenizer: Any, model_type: str, numbers: dict[str, int], has_types: bool
) -> None:
    build_model_config(settings_of(folder, model_type, **numbers), tokenizer)
    encoded = tokenizer("pal pel", "til")
    assert ("token_type_ids" in encoded) == has_types
    if has_types:
        second = len(tokenizer("til", add_special_tokens=False)["input_ids"]) + 1
        first = len(encoded["input_ids"]) - second
        assert encoded["token_type_ids"] == [0] * first + [1] * second


def test_the_digest_is_of_what_decides_the_tokens(tmp_path: Path) -> None:
    def digest(folder: Path, model_type: str = "bert") -> str:
        settings = settings_of(folder, model_type)
        tokenizer = load_tokenizer(settings)
        build_model_config(settings, tokenizer)
        return tokenizer_digest(tokenizer)

    one = trained(tmp_path / "one", "bpe")
    assert digest(one) == digest(trained(tmp_path / "again", "bpe"))
    assert digest(one) != digest(trained(tmp_path / "smaller", "bpe", 280))
    assert digest(one) != digest(one, "llama")  # no token_type_ids
    settings = settings_of(one, "bert")
    tokenizer = load_tokenizer(settings)
    before = tokenizer_digest(tokenizer)
    tokenizer.eos_token = "[SEP]"  # a role more for a token that is there: other ends of texts
    assert tokenizer_digest(tokenizer) != before


def test_a_file_that_the_class_of_its_model_type_rejects_is_loaded_on_its_own(tmp_path):
    """A BPE next to the configuration of a model whose class expects a Unigram."""
    texts = ["one two three four"] * 5
    train_tokenizer(TrainedTokenizer(train="bpe", vocab_size=280), texts, tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    (tmp_path / "config.json").write_text('{"model_type": "mbart"}')
    tokenizer = load_tokenizer(Model(name_or_path=str(tmp_path)))
    ids = tokenizer("one two")["input_ids"]
    assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == "one two"
    assert (tokenizer.pad_token, tokenizer.mask_token) == ("[PAD]", "[MASK]")


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_tokenizer_does_not_tell_how_it_was_used(tmp_path: Path, kind: str) -> None:
    """Nor where it was read from: the files depend only on the tokenizer and the model."""

    def saved(name: str, length: int, *, moved: bool) -> dict[str, bytes]:
        folder = trained(tmp_path / name / "source", kind)
        tokenizer = load_tokenizer(settings_of(folder, "bert"))
        if moved:
            tokenizer.save_pretrained(tmp_path / name / "moved")
            tokenizer = load_tokenizer(settings_of(tmp_path / name / "moved", "bert"))
        tokenizer(TEXTS[:3], truncation=True, max_length=length, padding="max_length")
        save_tokenizer(tokenizer, tmp_path / name / "saved", 64)
        assert len(tokenizer(TEXTS[0], truncation=True, max_length=3)["input_ids"]) == 3
        return {file.name: file.read_bytes() for file in (tmp_path / name / "saved").iterdir()}

    first = saved("one", 8, moved=False)
    assert first == saved("two", 32, moved=True)
    again = load_tokenizer(settings_of(tmp_path / "one" / "saved", "bert"))
    assert again.model_max_length == 64
    assert again.backend_tokenizer.truncation is again.backend_tokenizer.padding is None
    longer = again(" ".join(TEXTS[0] for _ in range(30)), verbose=False)["input_ids"]
    assert len(longer) > 64
    assert len(again(" ".join(TEXTS), truncation=True)["input_ids"]) == 64


def test_a_tokenizer_keeps_a_limit_that_is_smaller_than_the_model(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(settings_of(trained(tmp_path / "source", "bpe"), "bert"))
    tokenizer.model_max_length = 40
    save_tokenizer(tokenizer, tmp_path / "saved", 64)
    assert load_tokenizer(settings_of(tmp_path / "saved", "bert")).model_max_length == 40
