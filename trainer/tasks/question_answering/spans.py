"""Spans: the likeliest answers in a window, and those to a question over all its windows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Span = tuple[int, int]
"""Characters of a context: the first, and the one after the last."""


@dataclass(frozen=True)
class BestSpans:
    """The best spans of each window, best first; tensors [batch, num_best], on the CPU."""

    starts: Tensor
    ends: Tensor
    """Positions in the window; the end is the last position of the span."""
    scores: Tensor
    """Sum of both logits; -inf for the places of a window that has fewer spans."""


def best_spans(
    start_logits: Tensor,
    end_logits: Tensor,
    first: Tensor,
    last: Tensor,
    *,
    num_best: int,
    max_answer_length: int,
) -> BestSpans:
    """Returns the best spans in the context of each window, its positions `first` to `last`.

    Logits are [batch, seq], positions [batch]. Only the `num_best` best starts are considered, each
    with every end at most `max_answer_length` tokens away, so each window has at least one span.
    If scores are equal the earlier start goes first, however the batch is padded.
    """
    length = start_logits.shape[1]
    positions = torch.arange(length, device=start_logits.device)
    inside = (positions >= first[:, None]) & (positions <= last[:, None])
    start_scores = start_logits.masked_fill(~inside, -math.inf)
    end_scores = end_logits.masked_fill(~inside, -math.inf)
    ranked = start_scores.sort(descending=True, stable=True)
    starts, scores = ranked.indices[:, :num_best], ranked.values[:, :num_best]
    ends = starts[:, :, None] + torch.arange(max_answer_length, device=positions.device)
    reached = end_scores.gather(1, ends.clamp(max=length - 1).flatten(1)).view(ends.shape)
    pairs = scores[:, :, None] + reached.masked_fill(ends >= length, -math.inf)
    best = pairs.flatten(1).sort(descending=True, stable=True)
    chosen = best.indices[:, :num_best]
    starts = starts.gather(1, chosen // max_answer_length)
    return BestSpans(
        starts=starts.cpu(),
        ends=(starts + chosen % max_answer_length).cpu(),
        scores=best.values[:, :num_best].cpu(),
    )


def merge(windows: Iterable[Sequence[tuple[Span, float]]], num_best: int) -> dict[Span, float]:
    """Returns the best spans of all windows of a question with their scores, best first.

    A span in several windows keeps its highest score. If scores are equal the earlier span goes
    first.
    """
    scores: dict[Span, float] = {}
    for window in windows:
        for span, score in window:
            scores[span] = max(score, scores.get(span, -math.inf))
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:num_best])


def answer_probabilities(null_score: float, scores: Iterable[float]) -> list[float]:
    """Returns the probability of "no answer" and then of each span: the softmax of their scores."""
    all_scores = [null_score, *scores]
    top = max(all_scores)
    weights = [math.exp(score - top) for score in all_scores]
    total = sum(weights)
    return [weight / total for weight in weights]
