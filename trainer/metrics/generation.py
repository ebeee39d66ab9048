"""Scores of generated text over sacrebleu, rouge_score and nltk, offline."""

import re
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
from nltk.corpus import wordnet
from nltk.translate.meteor_score import meteor_score
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics.bleu import BLEU

from trainer.errors import DataError

_ROUGE = ["rouge1", "rouge2", "rougeL", "rougeLsum"]
TEXT_SCORES = ("bleu", *_ROUGE, "meteor", "exact_match")
"""Names of the scores, each 0 to 100."""
_WORDS_AND_SIGNS = re.compile(r"\w+|[^\w\s]")


class GenerationMetrics(evaluate.Metric):
    """BLEU, ROUGE, METEOR and exact match between 0 and 100.

    Takes predictions, one text each, and references, a list of texts each; gives the dict of
    `generation_scores`.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus BLEU, ROUGE-1, -2, -L and -Lsum, METEOR and exact match.",
            citation="",
            features=datasets.Features(
                {
                    "predictions": datasets.Value("string"),
                    "references": datasets.List(datasets.Value("string")),
                }
            ),
        )

    def _compute(
        self, *, predictions: Any = None, references: Any = None, **kwargs: Any
    ) -> dict[str, Any]:
        return generation_scores(predictions, references, **kwargs)


def generation_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float | str]:
    """Returns BLEU, ROUGE, METEOR and exact match, 0 to 100, of texts with one reference or more.

    `bleu` is sacrebleu's corpus BLEU with its defaults (13a tokens, case kept, exponential
    smoothing). `rouge1`, `rouge2`, `rougeL` and `rougeLsum` are means of rouge_score's F-measure,
    each of the reference where it is highest, without stemming; it knows a-z and 0-9 only.
    `rougeLsum` takes a line for a sentence. `meteor` is the mean of nltk's score with its defaults
    (alpha 0.9, beta 3, gamma 0.5), of the best reference. Its tokens are runs of letters, digits
    and underscores, and every other sign that is no white space by itself: `\\w+|[^\\w\\s]`.
    `meteor_matching` says which of its matchers had data: "exact, stem, WordNet" where nltk finds
    WordNet on this machine, else "exact, stem". `exact_match` counts predictions equal to a
    reference but for white space around them.

    Sources: Papineni et al. 2002 and Post 2018, Lin 2004, Lavie and Agarwal 2007.

    Without predictions there are no scores: an empty dict. Raises DataError where a prediction
    has no reference, or references and predictions differ in number.
    """
    _refuse_unequal(predictions, references)
    if not predictions:
        return {}
    meteor, meteor_matching = _meteor(predictions, references)
    return {
        "bleu": _bleu(predictions, references),
        **_rouge(predictions, references),
        "meteor": meteor,
        "meteor_matching": meteor_matching,
        "exact_match": _exact_match(predictions, references),
    }


def _bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    num_references = max(map(len, references))
    # sacrebleu wants as many for each text; one that comes twice changes no count and no length.
    streams = [
        [texts[min(i, len(texts) - 1)] for texts in references] for i in range(num_references)
    ]
    return float(BLEU().corpus_score(predictions, streams).score)


def _rouge(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    scorer = RougeScorer(_ROUGE)
    scores: list[dict[str, Any]] = [
        scorer.score_multi(texts, prediction)
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return {name: _percent([float(score[name].fmeasure) for score in scores]) for name in _ROUGE}


class _EmptyWordNet:
    """A WordNet without words, for machines that have none."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def _meteor(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, str]:
    synonyms, matching = _synonyms()
    scores = [
        meteor_score(
            [_WORDS_AND_SIGNS.findall(text) for text in texts],
            _WORDS_AND_SIGNS.findall(prediction),
            wordnet=synonyms,
        )
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return _percent(scores), matching


def _synonyms() -> tuple[Any, str]:
    """Returns what METEOR asks for synonyms, and the matchers that it then has."""
    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError):
        return _EmptyWordNet(), "exact, stem"
    return wordnet, "exact, stem, WordNet"


def _exact_match(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    return _percent(
        [
            float(prediction.strip() in [text.strip() for text in texts])
            for prediction, texts in zip(predictions, references, strict=True)
        ]
    )


def _percent(scores: Sequence[float]) -> float:
    return 100 * sum(scores) / len(scores)


def _refuse_unequal(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions have references for {len(references)}; "
            "give each prediction its list of references"
        )
    for index, texts in enumerate(references):
        if len(texts) == 0:
            raise DataError(f"prediction {index} has no reference; give it one text or more")
