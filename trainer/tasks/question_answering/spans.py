"""Spans: the likeliest answers of a window, and those of a question over all its windows."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Span = tuple[int, int]
"""First character of a context and the one after the last."""


@dataclass(frozen=True)
class BestSpans:
    """The best spans of each window, best first; tensors [batch, num_best], on the CPU."""

    starts: Tensor
    ends: Tensor
    """Positions in the window; the end belongs to the span."""
    scores: Tensor
    """Sums of both logits; -inf where a window has fewer spans."""


def best_spans(
    start_logits: Tensor,
    end_logits: Tensor,
    first: Tensor,
    last: Tensor,
    *,
    num_best: int,
    max_answer_length: int,
) -> BestSpans:
    """Returns the best spans within positions `first` to `last` of each window, the context.

    Logits are [batch, seq], positions [batch]. Considered are the `num_best` best starts with each
    end that they reach within `max_answer_length` tokens, so a window with a context has a span.
    Of equal scores the earlier start goes first, however the batch is padded.
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

    A span that several windows hold has its highest score. Of equal scores the earlier goes first.
    """
    scores: dict[Span, float] = {}
    for window in windows:
        for span, score in window:
            scores[span] = max(score, scores.get(span, -math.inf))
    return dict(sorted(scores.items(), key=lambda one: (-one[1], one[0]))[:num_best])


def null_probability(null_score: float, scores: Iterable[float]) -> float:
    """Returns the softmax of the null score beside the scores of spans: that there is no answer."""
    others = list(scores)
    top = max([null_score, *others])
    weights = [math.exp(score - top) for score in (null_score, *others)]
    return weights[0] / sum(weights)
