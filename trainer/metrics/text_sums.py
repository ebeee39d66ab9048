"""BLEU, ROUGE, METEOR and exact match from sums over texts."""

from collections.abc import Sequence

import numpy as np

from trainer.metrics.generation import ROUGE, exact_of_each, meteor_of_each, rouge_of_each
from trainer.metrics.scores import Metric, share

NUM_BLEU = 10
"""Sums that BLEU needs: the tokens of predictions and references, and, for n from 1 to 4, the
n-grams that match and all of them."""
MEANS = (*ROUGE, "meteor", "exact_match")
"""Scores that are means over texts, in the order of their sums, which follow BLEU's and a count."""
NUM_SUMS = NUM_BLEU + 1 + len(MEANS)


def text_sums(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns what each text adds to the sums, float64 [num_texts, NUM_SUMS].

    A text without references adds nothing.
    """
    sums = np.zeros((len(predictions), NUM_SUMS))
    scored = [index for index, texts in enumerate(references) if len(texts)]
    if not scored:
        return sums
    texts = [predictions[index] for index in scored], [references[index] for index in scored]
    meteor, _ = meteor_of_each(*texts)
    means = np.column_stack([rouge_of_each(*texts), meteor, exact_of_each(*texts)])
    sums[scored] = np.column_stack([_ngrams(*texts), np.ones(len(scored)), means])
    return sums


def text_metrics(first: int = 0) -> dict[str, Metric]:
    """Returns the scores, 0 to 100, as functions of sums; those of `text_sums` begin at column
    `first`."""
    count = first + NUM_BLEU

    def mean(column: int) -> Metric:
        return lambda sums: share(100 * sums[..., column], sums[..., count])

    return {
        "bleu": lambda sums: bleu(sums[..., first : first + NUM_BLEU]),
        **{name: mean(count + 1 + index) for index, name in enumerate(MEANS)},
    }


def bleu(sums: np.ndarray) -> np.ndarray:
    """Returns corpus BLEU, 0 to 100, from its sums, [..., NUM_BLEU].

    Papineni et al. 2002, with sacrebleu's exponential smoothing: the k-th n for which nothing
    matches counts as if 1 / 2^k n-grams matched. It is 0 if nothing at all matches, or if no text
    has n tokens.
    """
    tokens, reference_tokens = sums[..., 0], sums[..., 1]
    matches, ngrams = sums[..., 2:6], sums[..., 6:10]
    missed = matches == 0
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, -1), matches)
    defined = np.all(ngrams > 0, axis=-1) & np.any(~missed, axis=-1)
    precisions = smoothed / np.maximum(ngrams, 1)
    brevity = np.minimum(0.0, 1 - reference_tokens / np.maximum(tokens, 1))
    return np.where(defined, 100 * np.exp(np.log(precisions).mean(-1) + brevity), 0.0)


def _ngrams(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns BLEU's sums of each text, [num_texts, NUM_BLEU]."""
    from sacrebleu.metrics.bleu import BLEU

    scorer, rows = BLEU(), list[list[int]]()
    for prediction, texts in zip(predictions, references, strict=True):
        score = scorer.corpus_score([prediction], [[text] for text in texts])
        rows.append([score.sys_len, score.ref_len, *score.counts, *score.totals])
    return np.array(rows, np.float64)
