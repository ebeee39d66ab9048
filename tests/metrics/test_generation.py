"""Scores of generated text equal their libraries' own, batch by batch and without a network."""

import json
import socket
from pathlib import Path
from statistics import fmean

import nltk
import pytest
import sacrebleu
from nltk.corpus import wordnet
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer

from trainer.errors import DataError
from trainer.metrics.generation import generation_scores

PREDICTIONS = [
    "The Phoenix is a cheap French pub near the river .",
    "A dog ran home.\nThe cats slept on the mat.",
    "",
    "Zizzi serves crème brûlée — 5 stars, for £20!",
    "  It has no  rating.  ",
]
REFERENCES = [
    ["The Phoenix is a French pub by the river .", "Near the river is a cheap pub , The Phoenix ."],
    ["The cat slept on a mat.\nA dog was running home."],
    ["Something was expected here."],
    ["Zizzi has crème brûlée for £20.", "“Zizzi” serves Crème brûlée!", "東京"],
    ["It has no  rating."],
]
ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")


class NoSynonyms:
    def synsets(self, _word):
        return []


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """No network, and no data of nltk's that this machine may have."""

    def refuse(*_):
        raise AssertionError("a metric asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(nltk.data, "path", [])


def meteor(references: list[list[str]], prediction: list[str]) -> float:
    return 100 * meteor_score(references, prediction, wordnet=NoSynonyms())


def test_bleu_is_that_of_sacrebleu():
    scores = generation_scores(PREDICTIONS, REFERENCES)["bleu"]
    streams = [[texts[i] if i < len(texts) else None for texts in REFERENCES] for i in range(3)]
    assert scores == sacrebleu.corpus_bleu(PREDICTIONS, streams).score
    assert 10 < scores < 90
    one_each = [texts[0] for texts in REFERENCES]
    single = generation_scores(PREDICTIONS, [[text] for text in one_each])["bleu"]
    assert single == sacrebleu.corpus_bleu(PREDICTIONS, [one_each]).score
    assert single < scores


def test_bleu_is_smoothed_as_sacrebleu_does_by_default():
    prediction, reference = "the cat sat here today", "the cat sat on a mat"
    scores = generation_scores([prediction], [[reference]])["bleu"]
    assert scores == sacrebleu.corpus_bleu([prediction], [[reference]]).score
    assert scores > 0  # although no four words in a row are right


def test_bleu_pads_whichever_text_has_fewer_references():
    predictions, references = PREDICTIONS[3:], REFERENCES[3:]
    forwards = generation_scores(predictions, references)["bleu"]
    backwards = generation_scores(predictions[::-1], references[::-1])["bleu"]
    assert forwards == pytest.approx(backwards)


@pytest.mark.parametrize("name", ROUGE)
def test_rouge_is_the_mean_of_the_best_reference(name):
    scorer = RougeScorer([name])
    best = [
        max(scorer.score(text, prediction)[name].fmeasure for text in texts)
        for prediction, texts in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    assert generation_scores(PREDICTIONS, REFERENCES)[name] == pytest.approx(100 * fmean(best))


def test_rouge_lsum_takes_lines_for_sentences():
    scores = generation_scores(["b c\na d"], [["a d\nb c"]])
    assert (scores["rougeL"], scores["rougeLsum"]) == (50.0, 100.0)


def test_rouge_does_not_stem():
    assert generation_scores(["walking"], [["walked"]])["rouge1"] == 0.0


def test_meteor_is_that_of_nltk_over_words_and_signs():
    prediction = "The cat, running — home: it's 5 o_clock!"
    first, second = "Cats ran home at 5.", "the cat runs home; it's late"
    scores = generation_scores([prediction], [[first, second]])
    tokens = ["The cat , running — home : it ' s 5 o_clock !".split()]
    references = ["Cats ran home at 5 .".split(), "the cat runs home ; it ' s late".split()]
    assert scores["meteor"] == meteor(references, tokens[0])
    assert scores["meteor"] == max(meteor([one], tokens[0]) for one in references)
    assert scores["meteor_matching"] == "exact, stem"


def test_meteor_done_by_hand():
    same = generation_scores(["a b c d"], [["A b c d"]])["meteor"]
    assert same == pytest.approx(100 * (1 - 0.5 * (1 / 4) ** 3))  # one chunk of four matches
    half = generation_scores(["a x b"], [["a b"]])["meteor"]
    precision, recall, penalty = 2 / 3, 1.0, 0.5  # two chunks of two matches
    mean = precision * recall / (0.9 * precision + 0.1 * recall)
    assert half == pytest.approx(100 * (1 - penalty) * mean)
    both = generation_scores(["a b c d", "a x b"], [["A b c d"], ["a b"]])["meteor"]
    assert both == pytest.approx((same + half) / 2)


def test_meteor_matches_stems_but_no_synonyms_without_wordnet():
    assert generation_scores(["cars"], [["car"]])["meteor"] == 50.0
    assert generation_scores(["auto"], [["car"]])["meteor"] == 0.0


def write_wordnet(folder: Path) -> None:
    """A WordNet of one sense, in its own files: `car` and `auto` are the same."""
    folder.mkdir(parents=True)
    for part in ("noun", "verb", "adj", "adv"):
        for name in (f"index.{part}", f"data.{part}", f"{part}.exc"):
            folder.joinpath(name).write_text("")
    folder.joinpath("index.sense").write_text("")
    folder.joinpath("lexnames").write_text("0\tnoun.artifact\t1\n")
    folder.joinpath("data.noun").write_text("00000000 00 n 02 car 0 auto 0 000 | a vehicle\n")
    index = "".join(f"{word} n 1 0 1 0 00000000\n" for word in ("auto", "car"))
    folder.joinpath("index.noun").write_text(index)


@pytest.fixture
def small_wordnet(monkeypatch, tmp_path):
    write_wordnet(tmp_path / "corpora" / "wordnet")
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    yield
    wordnet._unload()


@pytest.mark.usefixtures("small_wordnet")
def test_meteor_matches_synonyms_if_wordnet_is_installed():
    scores = generation_scores(["auto"], [["car"]])
    assert (scores["meteor"], scores["meteor_matching"]) == (50.0, "exact, stem, WordNet")


def test_a_damaged_wordnet_is_none(monkeypatch, tmp_path):
    write_wordnet(tmp_path / "corpora" / "wordnet")
    (tmp_path / "corpora" / "wordnet" / "lexnames").unlink()
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    assert generation_scores(["auto"], [["car"]])["meteor_matching"] == "exact, stem"


def test_exact_match_sees_through_outer_white_space_only():
    scores = generation_scores(
        ["\tCrème 東京\n", "two  words", "Case", "second"],
        [["Crème 東京"], ["two words"], ["case"], ["first", " second"]],
    )
    assert scores["exact_match"] == 50.0


def test_text_without_latin_letters():
    scores = generation_scores(["東京 は 大きい"], [["東京 は 大きい"]])
    assert scores["exact_match"] == 100.0
    assert scores["meteor"] == pytest.approx(100 * (1 - 0.5 * (1 / 3) ** 3))
    assert [scores[name] for name in ROUGE] == [0.0] * 4  # as rouge_score's own: only a-z, 0-9


@pytest.mark.parametrize("reference", ["expected", ""])
def test_empty_predictions_score_nothing_but_a_match_with_nothing(reference):
    scores = generation_scores(["", " \n"], [[reference], [reference]])
    assert scores.pop("meteor_matching") == "exact, stem"
    assert scores.pop("exact_match") == (0.0 if reference else 100.0)
    assert scores == dict.fromkeys(["bleu", *ROUGE, "meteor"], 0.0)


def test_equal_texts_score_all_there_is():
    scores = generation_scores(PREDICTIONS[:1], [PREDICTIONS[:1]])
    assert [scores[name] for name in ("bleu", *ROUGE, "exact_match")] == pytest.approx([100.0] * 6)


def test_without_predictions_there_are_no_scores():
    assert generation_scores([], []) == {}


def test_every_prediction_needs_references():
    with pytest.raises(DataError, match="2 predictions have references for 1") as raised:
        generation_scores(["a", "b"], [["a"]])
    assert (raised.value.key, raised.value.value) == ("references", 1)
    with pytest.raises(DataError, match="prediction 1 has no reference") as raised:
        generation_scores(["a", "b"], [["a"], []])
    assert (raised.value.key, raised.value.value) == ("references", 1)


def test_scores_are_plain_numbers_and_texts():
    scores = generation_scores(PREDICTIONS, REFERENCES)
    assert {type(value) for value in scores.values()} == {float, str}
    assert json.loads(json.dumps(scores)) == scores
