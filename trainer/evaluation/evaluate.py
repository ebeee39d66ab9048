"""Evaluation over ranks: loss sums and statistics are added up, so each example counts once."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from trainer.assembly.memory_advice import run_memory
from trainer.distributed.collectives import any_rank, gather_on_main, on_main, sum_over_ranks
from trainer.engines.sharding import whole_model
from trainer.engines.topology import Topology
from trainer.errors import Stopped
from trainer.files.plain import remove
from trainer.process.run_entries import writing_to
from trainer.run import Run
from trainer.tasks.reported import Record

STOP_CHECK_INTERVAL = 8
"""Batches between checks whether a rank was asked to stop; each check waits for the device."""
ANSWERS_PER_STOP_CHECK = 32
"""Answers that a rank generates between such checks."""


def evaluate(
    run: Run,
    accelerator: Accelerator,
    split: str,
    *,
    predictions: Path | None = None,
    validation: Mapping[str, Any] | None = None,
    until_stopped: bool = False,
) -> dict[str, Any]:
    """Returns loss, loss by term, the task's metrics, and the seconds that a whole split took.

    The values do not depend on the number of ranks, and every rank gets them; the main process
    computes the task's metrics. It also writes a record of each answer to the file `predictions`,
    if given. `validation` holds the validation metrics at the same weights, from which the task
    takes thresholds. With `until_stopped`, raises Stopped on every rank once any was asked to stop.
    """
    start, rows, task = time.monotonic(), run.splits[split], run.task

    def check_stop() -> None:
        if until_stopped:
            leave_if_stopped(run, accelerator)

    run.objective.eval()
    keeps_records = predictions is not None or task.reads_records
    sums, records = _losses_and_records(run, accelerator, split, keeps_records, check_stop)
    records += _generated(run, accelerator, split, check_stop)
    run.objective.train()
    totals = sum_over_ranks(accelerator, sums, run.topology.loss_group).cpu().numpy()
    gathered = gather_on_main(accelerator, records)
    num_terms = len(task.loss_terms)

    def score() -> dict[str, Any]:
        answers = task.answers([record for part in gathered for record in part], rows)
        if predictions is not None:
            write_records(answers, predictions)
        return task.metrics(totals[2 * num_terms :], answers, validation)

    return {
        **loss_by_term(run, totals[:num_terms], totals[num_terms : 2 * num_terms]),
        **on_main(accelerator, score),
        "seconds": time.monotonic() - start,
    }


def leave_if_stopped(run: Run, accelerator: Accelerator) -> None:
    """Raises Stopped on every rank if any of them was asked to stop."""
    if any_rank(accelerator, run.stop.requested):
        raise Stopped(run.stop.code, "stopped in an evaluation")


def rank_share(lengths: np.ndarray, batch_size: int, topology: Topology) -> list[np.ndarray]:
    """Returns the example ids of each batch of this rank; a batch has examples of similar length.

    Every rank gets the same number of batches; on some ranks the last one is empty.
    """
    ids = np.argsort(lengths, kind="stable")
    batches = [ids[start : start + batch_size] for start in range(0, len(ids), batch_size)]
    batches += [ids[:0]] * (-len(batches) % topology.dp_size)
    return batches[topology.dp_rank :: topology.dp_size]


def loss_by_term(run: Run, sums: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Returns the weighted loss and, if the task has several terms, the mean of each.

    `sums` and `counts` are loss sums and target counts over all examples, float64 [num_terms].
    """
    terms = run.task.loss_terms
    means = [
        float(total / count) if count else 0.0 for total, count in zip(sums, counts, strict=True)
    ]
    loss = sum(term.weight * mean for term, mean in zip(terms, means, strict=True))
    named = {f"loss_{term.name}": mean for term, mean in zip(terms, means, strict=True)}
    return {"loss": loss, **(named if len(terms) > 1 else {})}


def write_records(records: list[Record], file: Path) -> None:
    """Writes one JSON line per record, and creates the file's folder if it does not exist.

    Without records there is no such file afterwards.
    """
    with writing_to(file.parent.parent):
        remove(file)  # if it is a link, opening it would write to its target
        if not records:
            return
        file.parent.mkdir(exist_ok=True)
        with file.open("x", encoding="utf-8") as opened:
            opened.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _losses_and_records(
    run: Run,
    accelerator: Accelerator,
    split: str,
    keeps_records: bool,
    check_stop: Callable[[], None],
) -> tuple[Tensor, list[Record]]:
    """Returns this rank's loss sums, target counts and statistics as one tensor, and its records if
    they are kept."""
    task, rows, device = run.task, run.splits[split], accelerator.device
    num_sums = 2 * len(task.loss_terms) + task.num_statistics
    sums = torch.zeros(num_sums, dtype=torch.float64, device=device)
    records: list[Record] = []
    batches = rank_share(rows.lengths, 2 * run.micro_batch_size, run.topology)
    for position, ids in enumerate(batches):
        if position % STOP_CHECK_INTERVAL == 0:
            check_stop()
        # A rank without examples still runs the model: engines gather weights in forward.
        batch = task.collate(rows, ids if len(ids) else np.zeros(1, int), epoch=0)
        with run_memory(run, accelerator, "evaluation", f"evaluating {split}", batch):
            batch = batch.to(device)
            with torch.no_grad():
                losses, outputs = run.objective(batch.inputs, batch.targets)
            if len(ids):
                statistics = task.statistics(outputs, batch.targets)
                sums += torch.cat([losses.double(), batch.counts, statistics])
                if keeps_records:
                    records += task.records(outputs, batch.targets, rows, ids)
    return sums, records


def _generated(
    run: Run, accelerator: Accelerator, split: str, check_stop: Callable[[], None]
) -> list[Record]:
    """Returns this rank's records of the answers that the model generates for a split."""
    rows, topology = run.splits[split], run.topology
    ids = run.task.sample(rows)
    records: list[Record] = []
    if not len(ids):
        return records
    per_check = ANSWERS_PER_STOP_CHECK * topology.dp_size
    with whole_model(run.objective), accelerator.autocast():  # as inside the wrapped objective
        for first in range(0, len(ids), per_check):
            check_stop()
            mine = ids[first : first + per_check][topology.dp_rank :: topology.dp_size]
            with run_memory(run, accelerator, "evaluation", f"generating answers to {split}"):
                records += run.task.generate(run.model, rows, mine)
    return records
