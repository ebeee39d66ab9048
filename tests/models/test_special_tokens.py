"""Special tokens in data: they stay text with every kind of tokenizer, unless they are parsed."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
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

from trainer.models.tokenizers.special_tokens import TextTokenizer

TEXTS = ["the cat sat on the mat < > / | _ [ ] s MASK end of text unk"] * 4
SPECIAL = ("<s>", "</s>", "<unk>", "[MASK]", "<|end|>")
ROLES = dict(
    zip(("bos_token", "eos_token", "unk_token", "mask_token", "pad_token"), SPECIAL, strict=True)
)


def wordpiece() -> Tokenizer:
    backend = Tokenizer(models.WordPiece(unk_token="<unk>"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=200, special_tokens=list(SPECIAL), show_progress=False
    )
    backend.train_from_iterator([text.lower() for text in TEXTS], trainer)
    return backend


def bytes_bpe() -> Tokenizer:
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def sentencepiece_bpe() -> Tokenizer:
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=list(SPECIAL), show_progress=False)
    backend.train_from_iterator(TEXTS, trainer)
    return backend


def unigram() -> Tokenizer:
    letters = sorted({letter for letter in "▁" + "".join(TEXTS) if letter != " "})
    pieces = [(token, 0.0) for token in SPECIAL]  # as in the files of XLM-R and T5
    backend = Tokenizer(models.Unigram([*pieces, *((one, -3.0) for one in letters)], 2))
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return backend


def words() -> Tokenizer:
    known = [*SPECIAL, *dict.fromkeys(" ".join(TEXTS).split())]
    backend = Tokenizer(models.WordLevel({one: n for n, one in enumerate(known)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


KINDS = {f.__name__: f for f in (wordpiece, bytes_bpe, sentencepiece_bpe, unigram, words)}


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest) -> Any:
    backend = KINDS[request.param]()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> $B </s>",
        special_tokens=[(one, backend.token_to_id(one)) for one in ("<s>", "</s>")],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, **ROLES)


def specials(tokenizer: Any, ids: list[int]) -> list[str]:
    return [one for one in tokenizer.convert_ids_to_tokens(ids) if one in SPECIAL if one != "<unk>"]


@pytest.mark.parametrize("token", SPECIAL)
@pytest.mark.parametrize("text", ["the {} cat", "{}", "the{}cat {}"])
def test_text_stays_text_by_default_and_is_the_token_if_parsed(
    tokenizer: Any, token: str, text: str
) -> None:
    text = text.replace("{}", token)
    literal = TextTokenizer(tokenizer).tokens([text, "the cat"])
    parsed = TextTokenizer(tokenizer, "parsed").tokens([text, "the cat"])
    plain = tokenizer("the cat", add_special_tokens=False)["input_ids"]
    assert literal.columns["input_ids"][1] == parsed.columns["input_ids"][1] == plain
    assert literal.special == parsed.special
    meant = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert parsed.columns["input_ids"][0] == meant
    assert specials(tokenizer, literal.columns["input_ids"][0]) == []
    if literal.special:
        assert literal.special == {0: token}
    else:  # only a tokenizer that did not take it for the token
        assert specials(tokenizer, meant) == []


def test_full_width_characters_stay_text(tokenizer: Any) -> None:
    encoded = TextTokenizer(tokenizer).tokens(["the ＜/s＞ cat"])
    assert specials(tokenizer, encoded.columns["input_ids"][0]) == []


def test_pairs_keep_the_special_tokens_around_them_and_are_cut_alike(tokenizer: Any) -> None:
    texts = ["the cat", "the </s> cat", "the cat"], ["sat on", "sat on", "[MASK] sat on the mat"]
    for settings in ({}, {"truncation": True, "max_length": 9}):
        encoded = TextTokenizer(tokenizer).encode(*texts, **settings)
        for ids in encoded.columns["input_ids"]:
            assert specials(tokenizer, ids) == ["<s>", "</s>", "</s>"]
            assert len(ids) <= settings.get("max_length", 99)
        plain = tokenizer(texts[0][0], texts[1][0], **settings)["input_ids"]
        assert encoded.columns["input_ids"][0] == plain


def test_characters_of_tokens_are_those_of_the_text(tokenizer: Any) -> None:
    text = "the </s> cat [MASK] sat"
    encoded = TextTokenizer(tokenizer).encode(
        [text, "the cat"], add_special_tokens=False, return_offsets_mapping=True
    )
    places = encoded.columns["offset_mapping"][0]
    assert len(places) == len(encoded.columns["input_ids"][0])
    covered = sorted({place for begin, end in places for place in range(begin, end)})
    assert "".join(text[one] for one in covered).replace(" ", "") == text.replace(" ", "")
    assert places == sorted(places)


@given(st.lists(st.sampled_from([*SPECIAL, "the ", "cat", " ", "<", "s>", "]", "日"]), max_size=8))
def test_no_text_gives_a_special_token(parts: list[str]) -> None:
    for text_tokenizer in BUILT:
        ids = text_tokenizer.tokens(["".join(parts)]).columns["input_ids"][0]
        assert specials(text_tokenizer.tokenizer, ids) == []


BUILT = [
    TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=make(), **ROLES))
    for make in (bytes_bpe, unigram, words)
]


def test_values_of_a_template_are_text_and_its_own_tokens_special() -> None:
    text_tokenizer = BUILT[0]
    value = text_tokenizer.guard({"a": ["x</s>"], "b": 1})
    assert text_tokenizer.special_in({"a": ["x</s>"], "b": 1}) == "</s>"
    assert text_tokenizer.special_in(value) is None
    (ids,) = text_tokenizer.templated([f"<s>{value['a'][0]}</s>"], [True])
    assert specials(text_tokenizer.tokenizer, ids) == ["<s>", "</s>"]
    assert text_tokenizer.tokenizer.decode(ids) == "<s>x</s></s>"


def test_an_ordinary_piece_that_is_also_special_stays_what_it_is() -> None:
    backend = bytes_bpe()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="!", eos_token="the")
    encoded = TextTokenizer(tokenizer).tokens(["the cat!"])
    assert encoded.special == {}
    assert (
        encoded.columns["input_ids"][0]
        == tokenizer("the cat!", add_special_tokens=False)["input_ids"]
    )


def test_texts_without_special_tokens_cost_about_nothing() -> None:
    text_tokenizer, texts = BUILT[0], ["the cat sat on the mat " * 20] * 1000

    def seconds(work: Any) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    text_tokenizer.tokens(texts[:10])
    plain = min(
        seconds(lambda: text_tokenizer.tokenizer(texts, add_special_tokens=False)) for _ in range(3)
    )
    ours = min(seconds(lambda: text_tokenizer.tokens(texts)) for _ in range(3))
    assert ours < 2 * plain
