"""Targets: examples that teach nothing, and padding that is learned."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from trainer.doctor.finding import Finding
from trainer.doctor.naming import names_of

if TYPE_CHECKING:
    from trainer.assembly.inputs import Inputs
    from trainer.data.encoded import PreparedSplit
    from trainer.tasks.base import Task
    from trainer.tasks.batch import Batch

MOST = 20_000
"""Examples of a split that are looked at, evenly chosen."""
TOGETHER = 64
"""Examples that are collated together, of like length."""
EPOCHS = (2, 3, 4)
"""Epochs in which an example without targets is looked at again: some tasks draw them."""


@dataclass
class _Ids:
    """Examples with something wrong."""

    without_targets: list[int] = field(default_factory=list[int])
    learned_padding: list[int] = field(default_factory=list[int])
    padding_token: list[int] = field(default_factory=list[int])


def about_targets(inputs: "Inputs") -> Iterator[Finding]:
    """Yields the examples of each split whose every target is masked, or that teach padding."""
    for name, split in inputs.splits.items():
        ids = np.arange(len(split))
        if len(ids) > MOST:
            ids = ids[:: -(-len(ids) // MOST)]
        wrong = _examined(inputs, split, ids)
        of = f"of {len(ids):,} {name} examples" + " looked at" * (len(ids) < len(split))
        if wrong.without_targets:
            number = len(wrong.without_targets)
            yield Finding(
                "masked-rows",
                "failure" if number == len(ids) else "warning",
                f"{number:,} {of} have no target that counts: they teach nothing, such as "
                f"{names_of(split, wrong.without_targets)}",
                "raise batch.max_seq_length, or remove these rows",
                {"examples": number, "of": len(ids)},
            )
        if wrong.learned_padding:
            number = len(wrong.learned_padding)
            yield Finding(
                "padding-learned",
                "failure",
                f"{number:,} {of} have targets at padded positions, which a model would learn, "
                f"such as {names_of(split, wrong.learned_padding)}",
                "have collate of the task give padded positions the target -100",
                {"examples": number, "of": len(ids)},
            )
        if wrong.padding_token:
            number = len(wrong.padding_token)
            token = inputs.tokenizer.pad_token
            yield Finding(
                "padding-token-learned",
                "warning",
                f"{number:,} {of} have the padding token {token!r} as a target, such as "
                f"{names_of(split, wrong.padding_token)}",
                "set model.pad_token: added, or data.special_tokens: literal if texts hold it",
                {"examples": number, "of": len(ids)},
            )


def _examined(inputs: "Inputs", split: "PreparedSplit", ids: np.ndarray) -> _Ids:
    task, tokenizer, wrong = inputs.task, inputs.tokenizer, _Ids()
    pad = tokenizer.pad_token_id
    pad = None if pad == tokenizer.eos_token_id else pad
    ids = ids[np.argsort(split.lengths[ids], kind="stable")]
    for start in range(0, len(ids), TOGETHER):
        chunk = ids[start : start + TOGETHER]
        batch = task.collate(split, chunk, 1)
        learned, padded, special = _of_batch(batch, split.lengths[chunk], pad)
        masked = _still_masked(task, split, chunk[~learned])
        wrong.without_targets += masked.tolist()
        wrong.learned_padding += chunk[padded].tolist()
        wrong.padding_token += chunk[special].tolist()
    for numbers in vars(wrong).values():
        numbers.sort()
    return wrong


def _of_batch(
    batch: "Batch", lengths: np.ndarray, pad: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns, for each example of a batch, whether any target counts, whether one at a padded
    position does, and whether one is the padding token, bool [batch]."""
    from trainer.models.output_loss import IGNORED

    shape = batch.inputs["input_ids"].shape
    behind = np.zeros(shape, bool)
    if "attention_mask" in batch.inputs:
        behind = batch.inputs["attention_mask"].numpy() == 0
    elif "position_ids" in batch.inputs:  # packed sequences, which have no mask
        behind = np.arange(shape[1]) >= lengths[:, None]
    learned, padded, special = (np.zeros(len(lengths), bool) for _ in range(3))
    for target in batch.targets.values():
        values = target.numpy()
        if values.ndim == 0 or len(values) != len(lengths):
            learned[:] = True  # laid out in a way of its own
            continue
        counts = np.ones(values.shape, bool)
        if not target.is_floating_point():
            counts = values != IGNORED
        learned |= counts.reshape(len(values), -1).any(axis=1)
        if target.shape == shape and not target.is_floating_point():
            padded |= (counts & behind).any(axis=1)
            if pad is not None:
                special |= (counts & ~behind & (values == pad)).any(axis=1)
    if not float(batch.counts.sum()):
        learned[:] = False
    return learned, padded, special


def _still_masked(task: "Task", split: "PreparedSplit", ids: np.ndarray) -> np.ndarray:
    """Returns the examples that have no target in other epochs, either."""
    for epoch in EPOCHS:
        if len(ids):
            learned, _, _ = _of_batch(task.collate(split, ids, epoch), split.lengths[ids], None)
            ids = ids[~learned]
    return ids
