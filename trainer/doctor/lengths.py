"""Lengths: their quantiles, what is truncated, and the padding that batches will have."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from trainer.doctor.finding import Finding
from trainer.errors import ConfigError
from trainer.order import DataOrder
from trainer.recipe.schema import Recipe

if TYPE_CHECKING:
    from trainer.assembly.inputs import Inputs

MANY_TRUNCATED, MUCH_PADDING = 0.1, 0.2
QUANTILES = (0.5, 0.9, 0.99, 1.0)
MOST_STEPS = 500
"""Optimizer steps of the first epoch whose padding is counted, from its start."""


def about_lengths(recipe: Recipe, inputs: "Inputs") -> Iterator[Finding]:
    """Yields the lengths of the train examples, the truncated share of each split, and the share of
    padding in the first epoch."""
    most = recipe.batch.max_seq_length
    lengths = inputs.splits["train"].lengths
    quantiles = np.quantile(lengths, QUANTILES, method="higher").astype(int).tolist()
    median, ninetieth, ninety_ninth, longest = quantiles
    yield Finding(
        "lengths",
        "fine",
        f"train examples have {median:,} tokens (median), {ninetieth:,} (90 %), {ninety_ninth:,} "
        f"(99 %), {longest:,} at most; batch.max_seq_length is {most:,}",
        None,
        {f"{quantile:g}": value for quantile, value in zip(QUANTILES, quantiles, strict=True)},
    )
    for name, split in inputs.splits.items():
        number = split.summary.num_truncated
        if not number:
            continue
        share = min(1.0, number / len(split))
        yield Finding(
            "truncated",
            "warning" if share >= MANY_TRUNCATED else "note",
            f"{number:,} of {len(split):,} {name} examples ({share:.1%}) are cut to {most:,} "
            f"tokens; the longest has {split.summary.longest:,}",
            "raise batch.max_seq_length if what is cut off matters",
            {"truncated": number, "of": len(split), "longest": split.summary.longest},
        )
    yield from _padding(recipe, lengths)


def _padding(recipe: Recipe, lengths: np.ndarray) -> Iterator[Finding]:
    """Yields the share of padding in the micro-batches of all ranks, if they can be cut."""
    from trainer.distributed.environment_variables import whole_number
    from trainer.doctor.micro_batch import expected_micro_batch

    batch, num_ranks = recipe.batch, whole_number("WORLD_SIZE", 1)
    try:
        size = expected_micro_batch(recipe).size
    except ConfigError:  # a finding on the launch
        return
    order = DataOrder(
        seed=recipe.seed,
        lengths=lengths,
        global_batch_size=batch.global_batch_size,
        length_bucketing=recipe.data.length_bucketing,
    )
    computed, real = 0, 0
    for step in range(min(order.steps_per_epoch, MOST_STEPS)):
        for rank in range(num_ranks):
            for ids in order.micro_batches(
                step, rank=rank, world_size=num_ranks, micro_batch_size=size
            ):
                if len(ids):
                    computed += len(ids) * int(lengths[ids].max())
                    real += int(lengths[ids].sum())
    share = 1 - real / computed
    much = share >= MUCH_PADDING
    advice = "set data.length_bucketing: true" if not recipe.data.length_bucketing else None
    yield Finding(
        "padding",
        "note" if much else "fine",
        f"micro-batches of {size} will be {share:.1%} padding",
        (advice or "lower batch.micro_batch_size") if much else None,
        {"share": share, "micro_batch_size": size},
    )
