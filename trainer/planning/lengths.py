"""The lengths of a recipe's examples: as they were prepared, or assumed to be the longest."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from trainer.assembly.inputs import kept_data
from trainer.data.encoded import PreparedSplit, Ragged
from trainer.order import DataOrder
from trainer.recipe.schema import Recipe
from trainer.schedule import total_steps
from trainer.tasks.masked_lm.settings import MaskedLMSettings

MOST_STEPS = 2_000
"""Steps of an epoch whose padding is counted; of a longer epoch, that many evenly spaced ones."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Lengths:
    """The lengths of examples in tokens, and what follows from them and the order of examples."""

    exact: bool
    """Whether they are those of the prepared data; otherwise all are `max_seq_length`."""
    note: str | None
    """A sentence on what is assumed; None if nothing is."""
    longest: int
    """Length of the longest train example; of pairs that are drawn, the longest there can be."""
    longest_evaluated: int
    """Length of the longest example of the other splits."""
    order: DataOrder | None
    """The order of the train examples; None if their number is unknown."""
    train: np.ndarray | None
    """Length of each train example, [examples]; None if their number is unknown."""
    num_evaluated: int | None
    """Number of validation examples; None if it is unknown."""
    num_steps: int | None
    """Optimizer steps of the whole run; None if it is unknown."""
    prepared_bytes: int | None
    """Size of the prepared data; None unless it is in the cache."""
    vocabulary: int | None
    """Rows of the model's vocabulary; None if the tokenizer is not in the cache."""

    @property
    def num_examples(self) -> int | None:
        """Number of train examples; None if it is unknown."""
        return None if self.train is None else len(self.train)

    @property
    def steps_per_epoch(self) -> int | None:
        return None if self.order is None else self.order.steps_per_epoch

    @cached_property
    def mean(self) -> float:
        """Mean length of a train example."""
        return float(self.longest if self.train is None else self.train.mean())

    @cached_property
    def tokens_per_epoch(self) -> int | None:
        """Tokens of an epoch, without padding."""
        return None if self.train is None else int(self.train.sum())

    def padded_tokens_per_epoch(self, micro_batch_size: int, processes: int) -> int | None:
        """Returns the tokens of an epoch with the padding of its micro-batches, over all processes.

        It is that of the first epoch, and an estimate if an epoch has more than MOST_STEPS steps.
        """
        if self.order is None or self.train is None:
            return None
        steps = self.order.steps_per_epoch
        counted = np.unique(np.linspace(0, steps - 1, min(steps, MOST_STEPS)).astype(int))
        padded = tokens = 0
        for step in counted.tolist():
            ids = self.order.examples(step)  # the shortest first
            slots = -(-len(ids) // (micro_batch_size * processes)) * processes
            parts = [part for part in np.array_split(self.train[ids], slots) if len(part)]
            padded += sum(len(part) * int(part[-1]) for part in parts)
            tokens += int(self.train[ids].sum())
        return padded if len(counted) == steps else round(int(self.train.sum()) * padded / tokens)

    def as_dict(self) -> dict[str, Any]:
        return {
            "exact": self.exact,
            "note": self.note,
            "longest": self.longest,
            "longest_evaluated": self.longest_evaluated,
            "mean": self.mean,
            "num_examples": self.num_examples,
            "num_evaluated": self.num_evaluated,
            "steps_per_epoch": self.steps_per_epoch,
            "num_steps": self.num_steps,
            "tokens_per_epoch": self.tokens_per_epoch,
        }


def prepared_lengths(recipe: Recipe) -> Lengths:
    """Returns the lengths of a recipe's examples, as far as the caches know them.

    Without prepared data, every example counts with `batch.max_seq_length` tokens, and every row as
    one example. Fetches, tokenises and writes nothing, and never fails for what is missing.
    """
    kept, most = kept_data(recipe), recipe.batch.max_seq_length
    if kept.splits:
        return lengths_of(recipe, kept.splits, kept.vocabulary)
    rows = kept.num_rows
    known = "" if not rows else f", and each of the {rows['train']:,} train rows as one example"
    return _lengths(
        recipe,
        train=np.full(rows["train"], most) if rows else None,
        num_evaluated=rows.get("validation", 0) if rows else None,
        longest_evaluated=most,
        prepared_bytes=None,
        vocabulary=kept.vocabulary,
        note=f"the data is not prepared: every example counts with max_seq_length={most} tokens"
        f"{known}; `trainer prepare RECIPE` gives exact lengths",
    )


def lengths_of(
    recipe: Recipe, splits: Mapping[str, PreparedSplit], vocabulary: int | None
) -> Lengths:
    """Returns the lengths of a recipe's prepared splits, with the rows of its vocabulary."""
    others = {name: split for name, split in splits.items() if name != "train"}
    return _lengths(
        recipe,
        train=splits["train"].lengths,
        num_evaluated=len(others["validation"]) if "validation" in others else 0,
        longest_evaluated=max((int(s.lengths.max()) for s in others.values()), default=0),
        prepared_bytes=sum(map(bytes_of, splits.values())),
        vocabulary=vocabulary,
        note=None,
    )


def bytes_of(split: PreparedSplit) -> int:
    """Returns the bytes of a prepared split in the cache."""
    arrays = [
        (column.values, column.offsets[1:]) if isinstance(column, Ragged) else (column,)
        for column in split.columns.values()
    ]
    return sum(array.nbytes for parts in arrays for array in parts)


def _lengths(
    recipe: Recipe,
    *,
    train: np.ndarray | None,
    num_evaluated: int | None,
    longest_evaluated: int,
    prepared_bytes: int | None,
    vocabulary: int | None,
    note: str | None,
) -> Lengths:
    order = train is not None and DataOrder(
        seed=recipe.seed,
        lengths=train,
        global_batch_size=recipe.batch.global_batch_size,
        length_bucketing=recipe.data.length_bucketing,
    )
    most = recipe.batch.max_seq_length
    # The second text of a pair is drawn in each epoch, and may be longer than the prepared one.
    pairs = isinstance(recipe.task, MaskedLMSettings) and recipe.task.next_sentence_prediction
    steps = total_steps(recipe.schedule, order.steps_per_epoch) if order else recipe.schedule.steps
    return Lengths(
        exact=note is None,
        note=note,
        longest=most if train is None or pairs else int(train.max()),
        longest_evaluated=most if pairs and longest_evaluated else longest_evaluated,
        order=order or None,
        train=train,
        num_evaluated=num_evaluated,
        num_steps=steps,
        prepared_bytes=prepared_bytes,
        vocabulary=vocabulary,
    )
