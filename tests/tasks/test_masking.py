"""Masking: how many tokens, which of them, and what stands in their place."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from trainer.models.output_loss import IGNORED
from trainer.models.tokenizers.tokenizer import SPECIAL, load_tokenizer, train_tokenizer
from trainer.recipe.model import Model, TrainedTokenizer
from trainer.tasks.masked_lm.masking import Masking
from trainer.tasks.masked_lm.settings import MaskedLMSettings

TEXTS = [
    "the lighthouse keeper remembers every thunderstorm of that winter",
    "wonderful handkerchiefs were embroidered by the grandmothers",
    "## Heading ## another ## and ## more",
]


def trained(kind: Any, folder: Path) -> Any:
    texts = [text + "\n" + text for text in TEXTS] * 4
    size = 90 if kind == "wordpiece" else 320  # too few for whole words
    train_tokenizer(TrainedTokenizer(train=kind, vocab_size=size), texts, folder)
    return load_tokenizer(Model(name_or_path=str(folder)))


def sentencepiece() -> Any:
    """Returns a tokenizer whose pieces mark a beginning with \u2581, as ALBERT's and XLM-R's do."""
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    special = list(SPECIAL.values())
    learn = trainers.BpeTrainer(vocab_size=90, special_tokens=special, show_progress=False)
    backend.train_from_iterator(TEXTS * 4, learn)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **SPECIAL)


@pytest.fixture(params=["wordpiece", "bpe", "sentencepiece"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return sentencepiece() if request.param == "sentencepiece" else trained(request.param, tmp_path)


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trained("wordpiece", tmp_path_factory.mktemp("wordpiece"))


def masking(tokenizer: Any, **settings: Any) -> Masking:
    return Masking(MaskedLMSettings(name="masked_lm", **settings), tokenizer)


def block(tokenizer: Any, size: int, seed: int = 1) -> np.ndarray:
    """Returns [CLS] … [SEP] with `size` random tokens that are not special."""
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    inside = np.random.default_rng(seed).choice(ordinary, size)
    return np.array([tokenizer.cls_token_id, *inside, tokenizer.sep_token_id])


def within(found: float, share: float, num_draws: int) -> bool:
    """Returns whether a share of draws is within five standard deviations of the wanted one."""
    return abs(found - share) < 5 * math.sqrt(share * (1 - share) / num_draws)


# How many, and which


@given(size=st.integers(1, 300), share=st.floats(0.01, 0.99), seed=st.integers(0, 9))
def test_as_many_are_masked_as_the_share_gives_and_one_at_least(wordpiece, size, share, seed):
    tokens = block(wordpiece, size, seed)
    _, labels = masking(wordpiece, mask_share=share).mask(tokens, np.random.default_rng(seed))
    assert (labels != IGNORED).sum() == max(1, round(share * size))


@pytest.mark.parametrize("whole_words", [False, True])
@given(size=st.integers(1, 60), seps=st.sets(st.integers(2, 50)), seed=st.integers(0, 99))
def test_labels_are_the_originals_and_the_ends_are_never_masked(
    wordpiece, whole_words, size, seps, seed
):
    tokens = block(wordpiece, size, seed)
    tokens[[place for place in seps if place < len(tokens)]] = wordpiece.sep_token_id
    before = tokens.copy()
    made = masking(wordpiece, mask_share=0.5, whole_words=whole_words)
    masked, labels = made.mask(tokens, np.random.default_rng(seed))
    wanted = labels != IGNORED
    ends = np.isin(tokens, [wordpiece.cls_token_id, wordpiece.sep_token_id])
    assert (tokens == before).all()  # the prepared tokens stay as they are
    assert wanted.any()
    assert not wanted[ends].any()
    assert (labels[wanted] == before[wanted]).all()
    assert (masked[~wanted] == before[~wanted]).all()


def test_every_token_is_as_likely_to_be_masked(wordpiece):
    made, tokens, random = masking(wordpiece), block(wordpiece, 40), np.random.default_rng(1)
    num_draws = 4000
    counts = sum((made.mask(tokens, random)[1] != IGNORED).astype(int) for _ in range(num_draws))
    assert counts[0] == counts[-1] == 0
    assert all(within(count / num_draws, 0.15, num_draws) for count in counts[1:-1])


# What stands in their place


@pytest.mark.parametrize("whole_words", [False, True])
def test_of_the_chosen_80_are_masked_10_another_token_and_10_kept(wordpiece, whole_words):
    made = masking(wordpiece, mask_share=0.4, whole_words=whole_words)
    tokens, random = block(wordpiece, 100), np.random.default_rng(1)
    replaced, kinds = list[int](), {"mask": 0, "kept": 0, "another": 0}
    for _ in range(1500):
        masked, labels = made.mask(tokens, random)
        chosen = labels != IGNORED
        now, original = masked[chosen], labels[chosen]
        kinds["mask"] += (now == wordpiece.mask_token_id).sum()
        kinds["kept"] += (now == original).sum()
        others = now[(now != wordpiece.mask_token_id) & (now != original)]
        kinds["another"] += len(others)
        replaced += others.tolist()
    total = sum(kinds.values())
    ordinary = set(range(len(wordpiece))) - set(wordpiece.all_special_ids)
    by_chance = 0.1 / len(ordinary)  # another token that happens to be the same
    assert within(kinds["mask"] / total, 0.8, total)
    assert within(kinds["kept"] / total, 0.1 + by_chance, total)
    assert within(kinds["another"] / total, 0.1 - by_chance, total)
    assert set(replaced) == ordinary  # any token, and never a special one
    shares = np.bincount(replaced, minlength=len(wordpiece)) / len(replaced)
    assert shares.max() < 2.5 / len(ordinary)


def test_what_is_added_to_a_tokenizer_as_special_is_no_replacement(tmp_path):
    tokenizer = trained("wordpiece", tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["[CITE]"]})
    tokenizer.add_tokens(["[NAME]"], special_tokens=True)
    added = tokenizer.convert_tokens_to_ids(["[CITE]", "[NAME]"])
    assert not np.isin([*added, *tokenizer.all_special_ids], masking(tokenizer).replacements).any()
    assert len(masking(tokenizer).replacements) == len(tokenizer) - 7


# Whole words


def words_of(tokenizer: Any, texts: list[str]) -> tuple[np.ndarray, list[list[int]]]:
    """Returns texts as a block, [SEP] between them, and the places of each word between spaces."""
    tokens, words = [tokenizer.cls_token_id], list[list[int]]()
    for text in texts:
        encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        found = dict[int, list[int]]()
        for place, (start, end) in enumerate(encoded["offset_mapping"]):
            if inside := text[start:end].strip():
                number = len(text[: text.index(inside, start) + 1].split())
                found.setdefault(number, []).append(len(tokens) + place)
        words += found.values()
        tokens += [*encoded["input_ids"], tokenizer.sep_token_id]
    return np.array(tokens), words


def test_the_pieces_of_a_word_are_masked_together(tokenizer):
    tokens, words = words_of(tokenizer, TEXTS[:2])
    assert max(map(len, words)) > 2  # words of several pieces
    made, random = masking(tokenizer, whole_words=True), np.random.default_rng(1)
    wanted, masked_together = round(0.15 * (len(tokens) - 3)), np.zeros(len(words), int)
    for _ in range(1000):
        _, labels = made.mask(tokens, random)
        chosen = labels != IGNORED
        whole = np.array([chosen[word].all() for word in words])
        assert [chosen[word].any() for word in words] == whole.tolist()
        assert wanted <= chosen.sum() < wanted + max(map(len, words))
        masked_together += whole
    assert (masked_together > 0).all()
    alone = masking(tokenizer)  # which splits words
    partly = [
        chosen[word].any() != chosen[word].all()
        for _ in range(20)
        for chosen in [alone.mask(tokens, random)[1] != IGNORED]
        for word in words
    ]
    assert any(partly)


def whole_and_alone(tokenizer: Any, texts: list[str]) -> None:
    """Asserts that each word of the texts is masked whole and, some time, without any other."""
    tokens, words = words_of(tokenizer, texts)
    made, random = masking(tokenizer, mask_share=0.01, whole_words=True), np.random.default_rng(1)
    alone = set[int]()
    for _ in range(400):
        chosen = set(np.flatnonzero(made.mask(tokens, random)[1] != IGNORED).tolist())
        hit = [number for number, word in enumerate(words) if chosen & set(word)]
        assert len(hit) <= 1  # 0 where the end of a line was chosen
        assert all(chosen >= set(words[number]) for number in hit)
        alone |= set(hit)
    assert alone == set(range(len(words)))


def test_a_word_does_not_go_on_after_the_end_of_a_document(tokenizer):
    tokens = words_of(tokenizer, ["winter", "thunderstorm of"])[0]
    marks = {tokenizer.convert_ids_to_tokens(int(token))[0] for token in tokens}
    if "\u0120" in marks:  # no mark at the beginning of a text, as with RoBERTa's
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    elif "\u2581" in marks:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    whole_and_alone(tokenizer, ["winter", "thunderstorm of", "grandmothers"])


def test_a_word_does_not_go_on_in_the_next_line(tmp_path):
    whole_and_alone(trained("bpe", tmp_path), ["that winter\nwonderful storm\r\nkeeper\tof the"])


def test_pieces_that_are_hash_signs_do_not_make_a_bpe_one_of_words(tmp_path):
    tokenizer = trained("bpe", tmp_path)
    assert "##" in tokenizer.get_vocab()  # as in GPT-2's and RoBERTa's
    whole_and_alone(tokenizer, ["the lighthouse keeper ## remembers"])


def test_a_block_of_ends_only_has_nothing_to_mask(wordpiece):
    tokens = np.array([wordpiece.cls_token_id, wordpiece.sep_token_id])
    masked, labels = masking(wordpiece).mask(tokens, np.random.default_rng(1))
    assert masked.tolist() == tokens.tolist()
    assert (labels == IGNORED).all()
