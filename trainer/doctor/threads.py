"""CPU threads: what torch uses, and what this process is allowed."""

import os
from collections.abc import Iterator

from trainer.doctor.finding import Finding
from trainer.process.cpu_threads import chosen_threads, core_limit, too_many


def about_threads() -> Iterator[Finding]:
    """Yields whether the threads of torch fit on the cores that this process may use."""
    import torch

    limit, used, chosen = core_limit(), torch.get_num_threads(), chosen_threads()
    number = max(used, chosen or 0)  # torch takes no more than there are cores
    figures = {
        "threads": used,
        "chosen": chosen,
        "allowed": limit.num_threads,
        "cores_of_machine": os.cpu_count(),
        "ranks": limit.num_ranks,
    }
    if number <= limit.num_threads:
        message = f"{used} thread{'s' * (used > 1)} on {limit}"
        if unused := used < limit.num_threads:
            message += ", some of which are unused"
        yield Finding("threads", "note" if unused else "fine", message, None, figures)
    elif chosen is not None:
        advice = f"set OMP_NUM_THREADS={limit.num_threads}"
        yield Finding("too-many-threads", "warning", too_many(limit, number), advice, figures)
    else:
        message = f"{too_many(limit, number)}: `trainer train` uses {limit.num_threads}"
        advice = f"set OMP_NUM_THREADS={limit.num_threads} for other programs"
        yield Finding("too-many-threads", "warning", message, advice, figures)
