"""Topology: this process's part of the data-parallel work, and the group that shares its sums."""

from dataclasses import dataclass
from typing import Any

from accelerate import Accelerator


@dataclass(frozen=True, kw_only=True)
class Topology:
    """The place of this process among those that split the examples of a step.

    Order, micro-batches, seeds and evaluation follow `dp_rank` and `dp_size`. Processes that
    share the examples of one data-parallel rank (tensor or context parallelism) would have equal
    ranks here. What concerns every process, such as who writes which file of a checkpoint, follows
    the accelerator.
    """

    dp_rank: int
    """Data-parallel rank, from 0."""
    dp_size: int
    """Number of data-parallel ranks, which split the global batch."""
    loss_group: Any
    """Process group over which loss sums and target counts add up; None for all processes."""
    is_writer: bool
    """Whether this process prints, scores, and writes files that exist once per run."""


def topology_of(accelerator: Accelerator) -> Topology:
    """Returns the topology of a launch, in which every process is a data-parallel rank."""
    return Topology(
        dp_rank=accelerator.process_index,
        dp_size=accelerator.num_processes,
        loss_group=None,
        is_writer=accelerator.is_main_process,
    )
