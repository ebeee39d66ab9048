"""Metrics beside the usual library, at random and in the corners: the table of the README."""

import math
import warnings
from pathlib import Path
from statistics import fmean
from typing import Any

import nltk
import numpy as np
import pytest
import sacrebleu
import torch
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sklearn import metrics
from torch.nn import functional
from transformers import BertConfig, BertForMaskedLM, GPT2Config, GPT2LMHeadModel

import trainer.metrics
from trainer.assembly.resume import as_measured_today
from trainer.metrics.answers import METRICS, answer_metrics
from trainer.metrics.averages import macro_averages, with_macro_averages
from trainer.metrics.generation import TEXT_SCORES, generation_scores
from trainer.metrics.squad import SquadRecord, squad_scores
from trainer.models.output_layer import install_output_layer
from trainer.models.output_loss import IGNORED, perplexity, score_tokens
from trainer.recipe.data import Columns
from trainer.state import TrainState
from trainer.tasks.classification.task import Classification

NAMES = ["a", "b", "c", "d", "e"]


def classification(size: int, **settings: Any) -> Classification:
    made: dict[str, Any] = {"tokenizer": None, "max_seq_length": 8, "columns": Columns()}
    return Classification(labels=NAMES[:size], **made, **settings)


def measured(labels: Any, predicted: Any, size: int) -> dict[str, Any]:
    """Returns the metrics of a task, from the statistics of two batches."""
    task, sums = classification(size), np.zeros(3 * size)
    for part in (slice(0, 3), slice(3, None)):
        logits = functional.one_hot(torch.tensor(predicted[part]).long(), size).float()
        sums += task.statistics(logits, {"labels": torch.tensor(labels[part]).long()}).numpy()
    return task.metrics(sums, [])


def random_pairs(size: int, seed: int) -> tuple[list[int], list[int]]:
    """Labels and predictions of which some classes occur in one, both or neither."""
    generator = np.random.default_rng(seed)
    known, given = (generator.choice(size, generator.integers(1, size + 1)) for _ in range(2))
    return generator.choice(known, 40).tolist(), generator.choice(given, 40).tolist()


CORNERS = [
    ([0, 1, 0, 1], [0, 1, 0, 1], 5),
    ([0, 0, 0, 0], [0, 0, 0, 0], 2),
    ([1, 1, 1, 1], [1, 1, 1, 1], 2),
    ([0, 0, 0, 0], [1, 1, 1, 1], 2),
    ([2, 2, 2, 2], [3, 3, 4, 4], 5),
    ([0, 1, 2, 3], [4, 4, 4, 4], 5),
]


@pytest.mark.parametrize(
    ("labels", "predicted", "size"),
    [*CORNERS, *((*random_pairs(size, seed), size) for size in (2, 3, 5) for seed in range(20))],
)
def test_classification_is_scikit_learn_with_its_defaults(labels, predicted, size):
    results = measured(labels, predicted, size)
    scores = (metrics.precision_score, metrics.recall_score, metrics.f1_score)
    assert results["accuracy"] == metrics.accuracy_score(labels, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is divided by zero, and is 0
        for name, score in zip(("precision", "recall", "f1"), scores, strict=True):
            assert results[f"{name}_macro"] == pytest.approx(
                score(labels, predicted, average="macro")
            )
            if size == 2:
                assert results[name] == pytest.approx(score(labels, predicted))
            by_class: Any = score(labels, predicted, average=None, labels=range(size))
            ours = [results["per_class"][label][name] for label in NAMES[:size]]
            assert ours == pytest.approx(by_class.tolist())
    assert with_macro_averages({"x": [results]}) == {"x": [results]}


def test_macro_averages_of_earlier_versions_are_recomputed():
    """They were over all labels; the figures of each class stand beside them."""
    labels, predicted = [0, 1, 0, 1], [0, 1, 1, 1]
    now = measured(labels, predicted, 5)
    before = {**now, "f1_macro": now["f1_macro"] * 2 / 5}
    assert with_macro_averages({"best": {"validation": before}})["best"]["validation"] == now
    assert macro_averages(before["per_class"])["f1_macro"] == now["f1_macro"]


def test_the_best_value_of_a_resumed_run_is_recomputed():
    results = measured([0, 1, 0, 1], [0, 1, 1, 1], 5)
    old = results["f1_macro"] * 2 / 5
    line = {"step": 7, "split": "validation", **results, "f1_macro": old}
    state = TrainState(step=9, best_step=7, best_value=old)
    assert as_measured_today(state, [line], "f1_macro").best_value == results["f1_macro"]
    for metric, lines in (("accuracy", [line]), ("f1_macro", [])):
        assert as_measured_today(state, lines, metric) == state


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_the_loss_of_a_classification_is_the_mean_of_torch(weights, smoothing):
    task = classification(3, class_weights=weights, label_smoothing=smoothing)
    labels, logits = torch.tensor([0, 1, 1, 2, 0]), torch.randn(5, 3)

    class Answers(torch.nn.Module):
        def forward(self) -> Any:
            return type("Output", (), {"logits": logits})

    sums, _ = task.loss_sums(Answers(), {}, {"labels": labels})
    expected = functional.cross_entropy(
        logits,
        labels,
        weight=None if weights is None else torch.tensor(weights),
        label_smoothing=smoothing,
    )
    assert float(sums[0] / task.class_weights[labels].sum()) == pytest.approx(float(expected))


SMALL: dict[str, Any] = {"vocab_size": 30, "pad_token_id": 0}


@pytest.mark.parametrize("kind", ["causal", "masked"])
def test_perplexity_is_the_exponential_of_the_loss_of_transformers(kind):
    torch.manual_seed(1)
    ids, labels = torch.randint(1, 30, (3, 7)), torch.full((3, 7), IGNORED)
    if kind == "causal":
        model = GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=2, **SMALL)).eval()
        labels[:, :-1], targets = ids[:, 1:], ids
    else:
        numbers = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        model = BertForMaskedLM(BertConfig(intermediate_size=8, **numbers, **SMALL)).eval()
        labels[:, ::3] = ids[:, ::3]
        targets = labels
    install_output_layer(model)
    with torch.no_grad():
        scored = score_tokens(model, {"input_ids": ids}, labels)
        loss = model(input_ids=ids, labels=targets).loss
    count = int((labels != IGNORED).sum())
    assert perplexity(float(scored.loss_sum), count) == pytest.approx(math.exp(loss), rel=1e-5)


def test_perplexity_weighs_tokens_and_not_batches():
    assert perplexity(2.0 + 30.0, 2 + 10) == pytest.approx(math.exp(32 / 12))
    assert perplexity(2.0 + 30.0, 2 + 10) != pytest.approx(math.exp((1.0 + 3.0) / 2))


WORDS = "the cat sat on a mat The mats , sitting quickly 42 é !".split()
PAIRS = [("", "a cat"), ("a cat", ""), ("", ""), ("a cat", "a cat"), ("a cat", "two dogs")]


def random_texts(seed: int) -> tuple[list[str], list[list[str]]]:
    generator = np.random.default_rng(seed)

    def text() -> str:
        return " ".join(generator.choice(WORDS, generator.integers(0, 9)))

    return [text() for _ in range(12)], [[text(), text()] for _ in range(12)]


class NoSynonyms:
    def synsets(self, _word: str) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        *(random_texts(seed) for seed in range(5)),
        *(([prediction], [[reference]]) for prediction, reference in PAIRS),
        ([one for one, _ in PAIRS], [[other] for _, other in PAIRS]),
    ],
)
def test_texts_are_scored_as_by_their_libraries(predictions, references, monkeypatch):
    monkeypatch.setattr(nltk.data, "path", [])
    results = generation_scores(predictions, references)
    streams = [list(one) for one in zip(*references, strict=True)]
    assert results["bleu"] == pytest.approx(sacrebleu.corpus_bleu(predictions, streams).score)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"])
    together = list(zip(predictions, references, strict=True))
    for name in ("rouge1", "rouge2", "rougeL", "rougeLsum"):
        best = [scorer.score_multi(texts, one)[name].fmeasure for one, texts in together]
        assert results[name] == pytest.approx(100 * fmean(best))
    tokens = nltk.tokenize.wordpunct_tokenize  # of what is here: no sign beside another
    meteors = [
        meteor_score([tokens(text) for text in texts], tokens(one), wordnet=NoSynonyms())
        for one, texts in together
    ]
    assert results["meteor"] == pytest.approx(100 * fmean(meteors))
    equal = [one.strip() in [text.strip() for text in texts] for one, texts in together]
    assert results["exact_match"] == pytest.approx(100 * fmean(equal))


@pytest.mark.parametrize(
    ("gold", "predicted", "exact", "f1"),
    [
        ([], "", 100, 100),
        ([], "words", 0, 0),
        (["the"], "", 100, 100),
        (["The cat!"], "cat", 100, 100),
        (["a cat"], "cat dog", 0, 200 / 3),
        (["cat"], "", 0, 0),
    ],
)
def test_corners_of_squad_are_those_of_the_official_script(gold, predicted, exact, f1):
    """tests/metrics/test_squad.py compares a second reading of it on random questions."""
    results = squad_scores([SquadRecord("x", gold, predicted)])
    assert (results["exact"], results["f1"]) == (exact, pytest.approx(f1))


def test_the_table_names_every_metric_that_can_decide():
    table = Path(trainer.metrics.__path__[0], "README.md").read_text("utf-8")
    answers = [
        {"id": "1", "answers": ["a"], "prediction": "a", "no_answer_probability": 0.1},
        {"id": "2", "answers": [], "prediction": "", "no_answer_probability": 0.9},
    ]
    offered = {
        *classification(2).metrics_offered,
        *("perplexity", "token_accuracy", "masked_accuracy", "next_sentence_accuracy"),
        *TEXT_SCORES,
        *METRICS,
    }
    reported = {*offered, *answer_metrics(answers)} - {"meteor_matching"}
    covered = {name.removeprefix("HasAns_").removeprefix("NoAns_") for name in reported}
    missing = {name for name in covered if f"`{name}`" not in table}
    assert missing == set()
