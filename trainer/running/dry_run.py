"""A dry run of a recipe: steps on its longest examples, and nothing written.

Heavy packages are imported inside the function, so that signals are heard while they load.
"""

from pathlib import Path

from trainer.recipe.schema import Recipe
from trainer.tracking.progress import Progress


def dry_run_recipe(recipe: Recipe, directory: Path, *, progress: Progress | None) -> None:
    """Takes steps of a recipe on its longest examples, and reports the memory that they need.

    Everything is resolved and opened as for a run in the directory, under the engine and on the
    ranks of the launch. Nothing is written but what `trainer prepare` would write into the caches.
    Raises TrainerError as the run would, such as OutOfMemoryError.
    """
    from trainer.assembly.summary import disk_space, summary
    from trainer.engines.accelerator import launched
    from trainer.loop import optimizer_step
    from trainer.planning.dry_run import dry_run
    from trainer.planning.measured import planned_for_dry_run
    from trainer.planning.planned_run import build_planned_run
    from trainer.process.cpu_threads import chosen_threads, core_limit, fit_threads
    from trainer.process.out_of_memory import held_bytes
    from trainer.tracking.trackers import check_installed

    check_installed(recipe.tracking.trackers)
    chosen = chosen_threads()
    with launched(recipe, directory) as accelerator:
        fit_threads(core_limit(), chosen)
        before = held_bytes()
        built = build_planned_run(
            recipe, accelerator, directory, progress=progress, keeps_tokenizer=False
        )
        run, micro_batch = built.run, built.micro_batch
        say = run.tracker.say
        say(summary(run, accelerator))
        if micro_batch is not None:
            say(f"  {micro_batch.reason}")
        for note in run.notes:
            say(f"  note: {note}")
        say(f"  {disk_space(run, accelerator)}")
        run.objective.train()
        taken = dry_run(
            run,
            accelerator,
            lambda batches: optimizer_step(run, accelerator, batches, step=1),
            resident_before=before,
        )
        # After the steps, because planning takes memory, too.
        memories = None if micro_batch is None else micro_batch.memories
        main = accelerator.is_main_process
        expected = planned_for_dry_run(run, accelerator, memories) if main else None
        say("\n".join(taken.lines(expected)))
        say("  nothing was written into the run directory")
