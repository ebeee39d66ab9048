"""Scores of generated text by sacrebleu, rouge_score and nltk, without a network."""

import re
from collections.abc import Sequence
from typing import Any

from trainer.errors import DataError

ROUGE = ("rouge1", "rouge2", "rougeL", "rougeLsum")
TEXT_SCORES = ("bleu", *ROUGE, "meteor", "exact_match")
"""Names of the scores, each 0 to 100."""
_WORDS_AND_SIGNS = re.compile(r"\w+|[^\w\s]")


def generation_scores(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> dict[str, float | str]:
    """Returns BLEU, ROUGE, METEOR and exact match, 0 to 100, with one or more references per text.

    - `bleu`: sacrebleu's corpus BLEU with its defaults (13a tokens, case kept, exponential
      smoothing).
    - `rouge1`, `rouge2`, `rougeL`, `rougeLsum`: mean of rouge_score's F-measure without stemming,
      taking the reference with the highest score. rouge_score reads only a-z and 0-9. For
      `rougeLsum` each line is a sentence.
    - `meteor`: mean of nltk's score with its defaults (alpha 0.9, beta 3, gamma 0.5), taking the
      reference with the highest score. Tokens are runs of word characters and single other
      characters that are not white space: `\\w+|[^\\w\\s]`.
    - `meteor_matching`: the matchers METEOR could use: "exact, stem, WordNet" if nltk finds WordNet
      on this machine, otherwise "exact, stem".
    - `exact_match`: share of predictions equal to a reference, ignoring white space at both ends.

    Sources: Papineni et al. 2002 and Post 2018, Lin 2004, Lavie and Agarwal 2007.

    Returns an empty dict if there are no predictions. Raises DataError if a prediction has no
    reference, or if predictions and references differ in number.
    """
    _refuse_unequal(predictions, references)
    if not predictions:
        return {}
    meteor, meteor_matching = meteor_of_each(predictions, references)
    rouge = zip(*rouge_of_each(predictions, references), strict=True)
    return {
        "bleu": _bleu(predictions, references),
        **{name: _percent(scores) for name, scores in zip(ROUGE, rouge, strict=True)},
        "meteor": _percent(meteor),
        "meteor_matching": meteor_matching,
        "exact_match": _percent(exact_of_each(predictions, references)),
    }


def _bleu(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    from sacrebleu.metrics.bleu import BLEU

    num_references = max(map(len, references))
    # sacrebleu wants the same number of references for each text; repeating one changes no score.
    streams = [
        [texts[min(i, len(texts) - 1)] for texts in references] for i in range(num_references)
    ]
    return float(BLEU().corpus_score(predictions, streams).score)


def rouge_of_each(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> list[list[float]]:
    """Returns the F-measures of each text, 0 to 1, in the order of ROUGE."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(list(ROUGE))
    scores: list[dict[str, Any]] = [
        scorer.score_multi(texts, prediction)
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return [[float(score[name].fmeasure) for name in ROUGE] for score in scores]


class _EmptyWordNet:
    """A WordNet without words, for machines that do not have its data."""

    def synsets(self, _word: str) -> list[Any]:
        return []


def meteor_of_each(
    predictions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[list[float], str]:
    """Returns METEOR of each text, 0 to 1, and the matchers that it could use."""
    from nltk.translate.meteor_score import meteor_score

    synonyms, matching = _synonyms()
    scores = [
        meteor_score(
            [_WORDS_AND_SIGNS.findall(text) for text in texts],
            _WORDS_AND_SIGNS.findall(prediction),
            wordnet=synonyms,
        )
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return scores, matching


def _synonyms() -> tuple[Any, str]:
    """Returns METEOR's source of synonyms, and the names of the matchers that it can use."""
    from nltk.corpus import wordnet

    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError):
        return _EmptyWordNet(), "exact, stem"
    return wordnet, "exact, stem, WordNet"


def exact_of_each(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """Returns 1.0 for each text that equals a reference, ignoring white space at both ends, and 0.0
    for others."""
    return [
        float(prediction.strip() in [text.strip() for text in texts])
        for prediction, texts in zip(predictions, references, strict=True)
    ]


def _percent(scores: Sequence[float]) -> float:
    return 100 * sum(scores) / len(scores)


def _refuse_unequal(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    if len(predictions) != len(references):
        raise DataError(
            f"{len(predictions)} predictions have references for {len(references)}",
            key="references",
            value=len(references),
            hint="give each prediction its list of references",
        )
    for index, texts in enumerate(references):
        if len(texts) == 0:
            raise DataError(
                f"prediction {index} has no reference",
                key="references",
                value=index,
                hint="give it one or more texts",
            )
