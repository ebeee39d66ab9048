"""The order of training examples: which of them form which optimizer step."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

POOL = 128
"""Number of global batches whose examples are sorted by length together."""

Indices = np.ndarray[tuple[int], np.dtype[np.int64]]


class DataOrder:
    """The order of training examples: a pure function of seed and step, on any number of ranks.

    An epoch is a seeded permutation of all examples, cut into pools of POOL global batches. Each
    pool is sorted by length and cut into global batches, and these are shuffled. Examples that do
    not fill a global batch are the epoch's last step. With `length_bucketing=False` nothing is
    sorted. World size and micro-batch size change neither order nor steps.
    """

    def __init__(
        self,
        *,
        seed: int,
        lengths: Sequence[int] | np.ndarray,
        global_batch_size: int,
        length_bucketing: bool,
    ) -> None:
        self._seed = seed
        self._lengths = np.asarray(lengths, dtype=np.int64)
        self._size = global_batch_size
        self._bucketing = length_bucketing
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)

    @property
    def num_examples(self) -> int:
        """Number of examples of an epoch."""
        return len(self._lengths)

    @property
    def steps_per_epoch(self) -> int:
        """Number of optimizer steps of an epoch; the last one may be incomplete."""
        return -(-self.num_examples // self._size)

    def epoch_of(self, step: int) -> int:
        """Returns the epoch, from 0, that optimizer step `step`, from 0, belongs to."""
        return step // self.steps_per_epoch

    def num_before(self, step: int) -> int:
        """Returns the number of examples in the first `step` optimizer steps."""
        epoch, index = divmod(step, self.steps_per_epoch)
        return epoch * self.num_examples + min(index * self._size, self.num_examples)

    def examples(self, step: int) -> Indices:
        """Returns the example ids of optimizer step `step`, shortest first."""
        epoch, index = divmod(step, self.steps_per_epoch)
        batch = self._epoch(epoch)[index]
        return batch[np.argsort(self._lengths[batch], kind="stable")]

    def micro_batches(
        self, step: int, *, rank: int, world_size: int, micro_batch_size: int
    ) -> list[Indices]:
        """Returns the example ids of each micro-batch of `rank` in optimizer step `step`.

        Examples of like length share a micro-batch. Ranks take turns by length, back and forth, so
        that they get about equally many tokens. Every rank gets the same number of micro-batches;
        in an incomplete step some of them hold fewer examples, or none.
        """
        ids = self.examples(step)
        num_slots = -(-len(ids) // (micro_batch_size * world_size))
        parts = np.array_split(ids, num_slots * world_size)
        return [
            parts[slot * world_size + (rank if slot % 2 == 0 else world_size - 1 - rank)]
            for slot in range(num_slots)
        ]

    def digest(self) -> str:
        """Returns a hash that two orders share only if all of their steps are the same."""
        settings = f"{self._seed} {self._size} {self._bucketing} {POOL} "
        return hashlib.sha256(settings.encode() + self._lengths.tobytes()).hexdigest()

    def _make_epoch(self, epoch: int) -> list[Indices]:
        generator = np.random.default_rng([self._seed, epoch])
        ids = generator.permutation(self.num_examples)
        num_full = self.num_examples - self.num_examples % self._size
        pool_size = POOL * self._size if self._bucketing else self._size
        batches: list[Indices] = []
        for start in range(0, num_full, pool_size):
            pool = ids[start : min(start + pool_size, num_full)]
            pool = pool[np.argsort(self._lengths[pool], kind="stable")]
            batches += np.split(pool, len(pool) // self._size)
        batches = [batches[index] for index in generator.permutation(len(batches))]
        return [*batches, ids[num_full:]] if num_full < self.num_examples else batches
