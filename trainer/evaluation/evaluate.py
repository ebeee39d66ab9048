"""Evaluation over ranks: sums and counts, never a list of logits; every example counts once."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object

from trainer.assembly.memory_advice import run_memory
from trainer.distributed.collectives import any_rank, sum_over_ranks
from trainer.engines.sharding import whole_model
from trainer.errors import Stopped
from trainer.files.plain import remove
from trainer.process.run_entries import writing_to
from trainer.tasks.base import Record

if TYPE_CHECKING:
    from trainer.run import Run

BATCHES_BETWEEN_LOOKS = 8
"""Ranks ask each other so often whether to stop: each time, a GPU waits for its results."""
ANSWERS_BETWEEN_LOOKS = 32
"""Of a rank, where it generates text."""


def evaluate(
    run: "Run",
    accelerator: Accelerator,
    split: str,
    *,
    predictions: Path | None = None,
    validation: Mapping[str, Any] | None = None,
    until_stopped: bool = False,
) -> dict[str, Any]:
    """Returns loss, loss by term and the task's metrics of a whole split, the same on every rank.

    With `predictions`, the main process also writes a record for each answer to that file.
    `validation` holds the validation metrics at the same weights, for thresholds found there. With
    `until_stopped`, raises Stopped on every rank once one of them was asked to stop.
    """
    start, rows, task = time.monotonic(), run.splits[split], run.task
    num_terms, device = len(task.loss_terms), accelerator.device
    sums = torch.zeros(2 * num_terms + task.num_statistics, dtype=torch.float64, device=device)
    records: list[Record] = []
    run.objective.eval()
    batches = rank_share(rows.lengths, 2 * run.micro_batch_size, accelerator)
    for position, ids in enumerate(batches):
        if until_stopped and position % BATCHES_BETWEEN_LOOKS == 0:
            leave_if_asked(run, accelerator)
        # A rank without examples left still takes part: an engine may gather weights in forward.
        batch = task.collate(rows, ids if len(ids) else np.zeros(1, int), epoch=0)
        with run_memory(run, accelerator, "evaluation", f"evaluating {split}", batch):
            batch = batch.to(device)
            with torch.no_grad():
                losses, outputs = run.objective(batch.inputs, batch.targets)
            if len(ids):
                found = task.statistics(outputs, batch.targets)
                sums += torch.cat([losses.double(), batch.counts, found])
                if predictions is not None or task.reads_records:
                    records += task.records(outputs, batch.targets, rows, ids)
    asked, together = task.sample(rows), ANSWERS_BETWEEN_LOOKS * accelerator.num_processes
    if len(asked):
        with whole_model(run.objective), accelerator.autocast():  # as the objective has it inside
            for first in range(0, len(asked), together):
                if until_stopped:
                    leave_if_asked(run, accelerator)
                mine = slice(accelerator.process_index, together, accelerator.num_processes)
                with run_memory(run, accelerator, "evaluation", f"generating answers to {split}"):
                    records += task.generate(run.model, rows, asked[first:][mine])
    run.objective.train()
    totals = sum_over_ranks(accelerator, sums).cpu().numpy()
    answers = task.answers(gather_object(records), rows)
    if predictions is not None and accelerator.is_main_process:
        write_records(answers, predictions)
    return {
        **loss_by_term(run, totals[:num_terms], totals[num_terms : 2 * num_terms]),
        **task.metrics(totals[2 * num_terms :], answers, validation),
        "seconds": time.monotonic() - start,
    }


def leave_if_asked(run: "Run", accelerator: Accelerator) -> None:
    """Raises Stopped on every rank where any of them was asked to stop."""
    if any_rank(accelerator, run.stop.requested):
        raise Stopped(run.stop.code, "stopped in an evaluation")


def rank_share(lengths: np.ndarray, batch_size: int, accelerator: Accelerator) -> list[np.ndarray]:
    """Returns the ids of each batch of this rank, like lengths together; as many on every rank."""
    ids = np.argsort(lengths, kind="stable")
    batches = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    batches += [ids[:0]] * (-len(batches) % accelerator.num_processes)
    return batches[accelerator.process_index :: accelerator.num_processes]


def loss_by_term(run: "Run", sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Returns the weighted loss and, where a task has several terms, each of them."""
    terms = run.task.loss_terms
    means = [
        float(total / count) if count else 0.0 for total, count in zip(sums, counts, strict=True)
    ]
    loss = sum(term.weight * mean for term, mean in zip(terms, means, strict=True))
    named = {f"loss_{term.name}": mean for term, mean in zip(terms, means, strict=True)}
    return {"loss": loss, **(named if len(terms) > 1 else {})}


def write_records(records: list[Record], file: Path) -> None:
    """Writes a line for each record, in a folder that is made where it is not there."""
    with writing_to(file.parent.parent):
        file.parent.mkdir(exist_ok=True)
        remove(file)  # a link would be followed
        with file.open("x", encoding="utf-8") as opened:
            opened.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
