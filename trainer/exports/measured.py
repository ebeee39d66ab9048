"""What the model of a run answers to a few real examples: an export is compared with it."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.assembly.memory_advice import run_memory
from trainer.data.encoded import PreparedSplit
from trainer.errors import OutOfMemoryError
from trainer.exports.bounds import computes_in_fp32
from trainer.exports.usage.answers import expected_of
from trainer.exports.usage.inputs import usage_of
from trainer.exports.usage.usage import Expected, Usage, how_to_use
from trainer.models.span_head import how_to_load
from trainer.run import Run

MOST_LOGITS = 2**25
"""Logits of one batch and name that are kept; more are thinned out by whole tokens."""
MOST_TEXTS, LONGEST_TEXT = 64, 4096
"""Texts that are tokenised, and the characters that count of each."""


@dataclass(frozen=True, kw_only=True)
class MeasuredBatch:
    """A batch, and the logits that the model of the run gives for it."""

    inputs: dict[str, Tensor]
    """Arguments of the model, [batch, seq], on the CPU."""
    positions: Tensor
    """Which tokens are compared, as positions in the flattened batch; padding is left out."""
    logits: dict[str, Tensor]
    """Logits by the name of the output, fp32 on the CPU: [tokens, ...] if `per_token`."""
    per_token: dict[str, bool]
    """Whether an output has values for each token, rather than for each example."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Answers of the model of a run."""

    batches: list[MeasuredBatch]
    """The longest example, the shortest, and a padded batch."""
    num_examples: int
    texts: list[tuple[str, list[int]]]
    """Real texts, and the ids that the tokenizer of the run gives for them."""
    usage: Usage | None
    """The code of the model card; None if the run reads inputs otherwise than transformers does."""
    expected: list[Expected]
    """What that code has to answer."""


def measure_if_asked(run: Run, accelerator: Accelerator) -> Measured | str:
    """Returns the answers of the model of a run, or why they are not known; see `measure`."""
    if not run.recipe.checkpoint.verify_export:
        return "checkpoint.verify_export is false"
    try:
        return measure(run, accelerator)
    except OutOfMemoryError as error:
        return f"its answers were not measured: {error.message}"


def measure(run: Run, accelerator: Accelerator) -> Measured:
    """Returns the answers of the model of a run, on every rank: in fp32 if all its weights are,
    otherwise in the run's precision.

    The model must be whole (`whole_model`): every rank computes the same, without the others.
    Raises OutOfMemoryError.
    """
    split = measured_split(run)
    model: Any = run.model
    was_training = model.training
    model.eval()
    groups = list(_groups(run, split))
    usage = usage_of(run, split)
    with run_memory(run, accelerator, "evaluation", "measuring the model that is exported"):
        batches = [_batch(run, accelerator, split, ids) for ids in groups]
        with torch.no_grad(), _precision(run, accelerator):
            expected = expected_of(run, split, usage)
    model.train(was_training)
    return Measured(
        batches=batches,
        num_examples=len({int(index) for ids in groups for index in ids}),
        texts=_texts(run, split),
        usage=usage,
        expected=expected,
    )


def usage_section(run: Run, measured: Measured | str) -> str:
    """Returns the section of a model card about use; empty if transformers alone does not read
    inputs as the run does."""
    known = isinstance(measured, Measured)
    usage = measured.usage if known else usage_of(run, measured_split(run))
    return how_to_load(run.model) or ("" if usage is None else how_to_use(usage))


def _precision(run: Run, accelerator: Accelerator) -> AbstractContextManager[Any]:
    return nullcontext() if computes_in_fp32(run) else accelerator.autocast()


def measured_split(run: Run) -> PreparedSplit:
    """Returns the split whose examples are measured: validation, or else test, or else train."""
    names = ("validation", "test", "train")
    return next(run.splits[name] for name in names if name in run.splits)


def _groups(run: Run, split: PreparedSplit) -> Iterator[np.ndarray]:
    """Yields the ids of the longest example, of the shortest, and of a batch with padding.

    The batch also holds the longest example, unless its logits would be too large.
    """
    order = np.argsort(split.lengths, kind="stable")
    shortest, middle, longest = order[:1], order[len(order) // 2 :][:1], order[-1:]
    yield longest
    yield shortest
    batch = np.unique(np.concatenate([shortest, middle, longest]))
    config: Any = run.model.config
    rows = getattr(config.get_text_config(), "vocab_size", 1)
    if len(batch) * int(split.lengths[longest[0]]) * rows > 4 * MOST_LOGITS:
        batch = np.unique(np.concatenate([shortest, middle]))
    if len(batch) > 1:
        yield batch


def _batch(
    run: Run, accelerator: Accelerator, split: PreparedSplit, ids: np.ndarray
) -> MeasuredBatch:
    inputs = dict(run.task.collate(split, ids, epoch=0).inputs)
    width = inputs["input_ids"].shape[1]
    if inputs.pop("position_ids", None) is not None:  # packed examples, read as one text
        inside = torch.arange(width) < torch.from_numpy(split.lengths[ids])[:, None]
        inputs["attention_mask"] = inside.long()
    mask = inputs.get("attention_mask", torch.ones_like(inputs["input_ids"]))
    positions = mask.flatten().nonzero().flatten()
    model: Any = run.model
    device = next(model.parameters()).device
    with torch.no_grad(), _precision(run, accelerator):
        output = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
    named: dict[str, Tensor] = {name: value for name, value in output.items() if "logits" in name}
    per_token = {name: value.dim() > 1 and value.shape[1] == width for name, value in named.items()}
    for name, value in named.items():
        if per_token[name]:
            most = max(1, MOST_LOGITS // max(1, value[0, 0].numel()))
            positions = _thinned(positions, most)
    logits = {
        name: (value.flatten(0, 1)[positions.to(device)] if per_token[name] else value)
        .float()
        .cpu()
        .contiguous()
        for name, value in named.items()
    }
    return MeasuredBatch(inputs=inputs, positions=positions, logits=logits, per_token=per_token)


def _thinned(positions: Tensor, most: int) -> Tensor:
    """Returns at most `most` of the positions, evenly spaced, the first and the last included."""
    if len(positions) <= most:
        return positions
    return positions[torch.linspace(0, len(positions) - 1, most).round().long().unique()]


def _texts(run: Run, split: PreparedSplit) -> list[tuple[str, list[int]]]:
    """Returns texts of the split's rows with their ids, without truncation."""
    texts: dict[str, None] = {}
    rows: Any = [] if split.rows is None else split.rows
    for index in range(min(8, len(rows))):
        texts |= dict.fromkeys(_strings(rows[index]))
    shown = [text[:LONGEST_TEXT] for text in texts][:MOST_TEXTS]
    return [(text, list(run.tokenizer(text, verbose=False)["input_ids"])) for text in shown]


def _strings(value: Any) -> Iterator[str]:
    """Yields the texts in a value of a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _strings(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _strings(inner)
