"""A dry run: real optimizer steps on the longest examples, and the memory that they take."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator

from trainer.engines.micro_batch import accumulation
from trainer.errors import OutOfMemoryError
from trainer.run import Run
from trainer.tasks.batch import Batch
from trainer.tracking.resident_memory import peak_resident_bytes
from trainer.tracking.time_to_go import Planned
from trainer.wording import format_seconds

LOG = logging.getLogger("trainer")
NUM_STEPS = 2
"""In the first one the optimizer makes its moments, so the second takes as much memory as any."""
MOST_TRIES = 30
"""Steps after which a dry run ends, even if fp16 loss scaling left all of them out."""


class Taken(Protocol):
    """What a dry run reads of the step that it has taken."""

    @property
    def skipped(self) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a dry run has measured; memory is that of the process that took most."""

    shape: tuple[int, int]
    """Examples and tokens of the largest micro-batch of this process."""
    num_micro_batches: int
    """Micro-batches of each step."""
    num_steps: int
    seconds: float
    allocated: int | None
    """Peak bytes of tensors on the GPU; None on a CPU."""
    reserved: int | None
    """Peak bytes that CUDA's caching allocator held; None on a CPU."""
    grown: int | None
    """Bytes by which the resident memory of the process grew, from before the data was opened to
    its peak; None on a GPU."""

    def lines(self, planned: Planned | None) -> list[str]:
        """Returns what was done, and the peak beside the planned one, a line each."""
        several = "es" if self.num_micro_batches > 1 else ""
        examples, tokens = self.shape
        done = (
            f"  dry run: {self.num_steps} steps of {self.num_micro_batches} micro-batch{several} "
            f"[{examples}, {tokens}] (examples, tokens), the longest, took "
            f"{format_seconds(self.seconds)} with learning rate 0; evaluation and saving are not "
            f"tried"
        )
        known = None if planned is None else planned.memory_bytes
        if self.allocated is None or self.reserved is None:
            tensors = "" if known is None else f"; the plan counts {_mib(known)} of tensors"
            grown = f"the process grew by {_mib(self.grown or 0)} of resident memory"
            return [done, f"  peak memory: {grown}, libraries included{tensors}"]
        beside = "not planned" if known is None else f"planned {_mib(known)}"
        peak = f"{_mib(self.allocated)} allocated ({beside}), {_mib(self.reserved)} reserved"
        return [done, f"  peak memory of a process: {peak}"]


def dry_run(
    run: Run,
    accelerator: Accelerator,
    take_step: Callable[[list[Batch]], Taken],
    *,
    resident_before: int,
) -> DryRun:
    """Takes optimizer steps with learning rate 0 on the longest examples, and returns their peak.

    A step has two micro-batches if those of the run have several, because gradients are then held
    during a forward pass. `resident_before` is the resident memory of the process before the data
    was opened. Collective: every rank calls it. Raises OutOfMemoryError.
    """
    on_gpu = accelerator.device.type == "cuda"
    for group in run.optimizer.param_groups:
        group["lr"] = 0.0
    several = accumulation(run.recipe, run.micro_batch_size, run.topology.dp_size) > 1
    batch = longest_micro_batch(run).to(accelerator.device)
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    started, tries, done = time.monotonic(), 0, 0
    while done < NUM_STEPS and tries < MOST_TRIES:
        try:
            taken = take_step([batch] * (1 + several))
        except OutOfMemoryError as error:
            if not accelerator.is_local_main_process:  # which alone reports errors
                LOG.error("rank %d: %s", accelerator.process_index, error)
            raise
        tries, done = tries + 1, done + (not taken.skipped)
    figures = (
        [torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()]
        if on_gpu
        else [max(0, peak_resident_bytes() - resident_before)]
    )
    own = torch.tensor([figures], dtype=torch.int64, device=accelerator.device)
    gathered: Any = accelerator.gather(own)
    peak: list[int] = gathered.max(0).values.tolist()
    tokens = next(iter(batch.inputs.values()))
    return DryRun(
        shape=(tokens.shape[0], tokens.shape[1]),
        num_micro_batches=1 + several,
        num_steps=tries,
        seconds=time.monotonic() - started,
        allocated=peak[0] if on_gpu else None,
        reserved=peak[1] if on_gpu else None,
        grown=None if on_gpu else peak[0],
    )


def longest_micro_batch(run: Run) -> Batch:
    """Returns this rank's micro-batch of the longest train examples, which ranks share evenly."""
    train, topology = run.splits["train"], run.topology
    order = np.argsort(-train.lengths, kind="stable")
    ids = order[: run.micro_batch_size * topology.dp_size][topology.dp_rank :: topology.dp_size]
    batch = run.task.collate(train, ids if len(ids) else order[:1], 1)
    return batch if len(ids) else batch.as_dummy()


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.0f} MiB"
