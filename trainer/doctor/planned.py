"""The plan of a recipe in one line, held against what this machine has."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from trainer.doctor.finding import Finding, failure
from trainer.doctor.offline import without_network
from trainer.doctor.storage import why_unwritable
from trainer.errors import TrainerError
from trainer.process.available_memory import available_bytes
from trainer.recipe.schema import Recipe
from trainer.wording import format_bytes


def about_plan(recipe: Recipe) -> Iterator[Finding]:
    """Yields the plan of a recipe, and what this machine has too little of for it."""
    import torch

    from trainer.distributed.environment_variables import whole_number
    from trainer.planning.plan import plan

    num_ranks = whole_number("WORLD_SIZE", 1)
    with without_network():
        try:
            planned = plan(recipe, processes=num_ranks if num_ranks > 1 else None)
        except TrainerError as error:
            yield failure("not-planned", error.after("this run cannot be planned: "), "warning")
            return
    if torch.cuda.is_available():
        settings = [change.setting for change in planned.changes if change.fits]
        yield of_gpu(planned.line, fits=planned.fits, settings=settings)
        yield from of_memory(planned.host.machine, available_bytes())
    else:
        yield Finding("plan", "fine", f"plan: {planned.line}", None, {"fits": planned.fits})
    yield from of_disk(planned.disk.run_directory, Path("runs").absolute())


def of_gpu(line: str, *, fits: bool, settings: Sequence[str]) -> Finding:
    """Returns the plan for this machine's GPU; `settings` would make it fit."""
    if fits:
        return Finding("plan", "fine", f"plan: {line}", None, {"fits": True})
    advice = f"set {' or '.join(settings)}" if settings else "use a larger GPU, or several"
    return Finding("does-not-fit", "failure", f"plan: {line}", advice, {"fits": False})


def of_memory(needed: int, available: int | None) -> Iterator[Finding]:
    """Yields whether the machine has less memory left than the processes of a run take."""
    if available is not None and needed > available:
        yield Finding(
            "little-memory",
            "warning",
            f"the processes of this run take about {format_bytes(needed)} of the machine's memory, "
            f"and {format_bytes(available)} are left",
            "end other programs, or ask for more memory",
            {"needed": needed, "available": available},
        )


def of_disk(needed: int, folder: Path) -> Iterator[Finding]:
    """Yields whether a disk has less space left than a new run takes in its directory."""
    _, free = why_unwritable(folder)
    if needed > free:
        yield Finding(
            "little-space-for-the-run",
            "failure",
            f"a new run takes {format_bytes(needed)} in its directory, and {format_bytes(free)} "
            f"are free at {folder}",
            "free space, lower checkpoint.keep_last, or give --run-dir",
            {"needed": needed, "free": free},
        )
