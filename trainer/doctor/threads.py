"""CPU threads: what torch uses, and what this process is allowed."""

import os
from collections.abc import Iterator

from trainer.doctor.finding import Finding
from trainer.process.cpu_threads import core_limit, sentence, threads_are_chosen


def about_threads() -> Iterator[Finding]:
    """Yields whether the threads of torch fit on the cores that this process may use."""
    import torch

    limit, number, chosen = core_limit(), torch.get_num_threads(), threads_are_chosen()
    figures = {
        "threads": number,
        "allowed": limit.num_threads,
        "cores_of_machine": os.cpu_count(),
        "ranks": limit.num_ranks,
    }
    if number <= limit.num_threads:
        message = f"{number} thread{'s' * (number != 1)} on {limit}"
        unused = number < limit.num_threads and chosen
        if unused:
            message += "; OMP_NUM_THREADS leaves cores unused"
        yield Finding("threads", "note" if unused else "fine", message, figures=figures)
    elif chosen:
        message, _, advice = sentence(limit, number, chosen=True).rpartition("; ")
        yield Finding("too-many-threads", "warning", message, advice, figures)
    else:
        message = f"torch would use {number} threads, and `trainer train` lowers them: {limit}"
        advice = f"set OMP_NUM_THREADS={limit.num_threads} for other programs"
        yield Finding("too-many-threads", "warning", message, advice, figures)
