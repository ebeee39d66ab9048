"""The run of a recipe: the order of everything before and after the loop.

Heavy packages are imported inside the function, so that signals are heard while they load.
"""

from contextlib import ExitStack
from pathlib import Path

from trainer.errors import DONE
from trainer.process.status import Status
from trainer.process.stop_request import StopRequest
from trainer.recipe.schema import Recipe
from trainer.result import Result, read_result
from trainer.tracking.progress import Progress, Update


def train_recipe(
    recipe: Recipe,
    directory: Path,
    resume: str,
    *,
    status: Status,
    stop: StopRequest,
    progress: Progress | None,
) -> Result:
    """Trains or resumes a recipe in its run directory, and returns the result on every rank.

    It stops early if `stop` requests it, and writes `status` last. Both `train` and the command
    line call it.
    """
    from trainer.assembly.memory_advice import run_memory
    from trainer.assembly.open_directory import check_shared, open_directory, write_settings
    from trainer.assembly.resume import continued, resume_run
    from trainer.assembly.summary import disk_space, summary
    from trainer.distributed.collectives import on_main
    from trainer.distributed.timeouts import training_time
    from trainer.engines.accelerator import launched
    from trainer.evaluation.before_training import measure_before_training
    from trainer.loop import finished
    from trainer.loop import train as train_loop
    from trainer.planning.measured import planned_for_run
    from trainer.planning.planned_run import build_planned_run
    from trainer.process.cpu_threads import chosen_threads, core_limit, fit_threads
    from trainer.process.sessions import begin_session, end_session
    from trainer.publishing.after_run import before_push, push_finished
    from trainer.recipe.keys import flatten
    from trainer.recipe.reading import dump_yaml
    from trainer.report.results import finish
    from trainer.tracking.trackers import check_installed, start_trackers

    check_installed(recipe.tracking.trackers)
    chosen = chosen_threads()  # later, Accelerate may have set the variable itself
    with launched(recipe, directory, stop) as accelerator, ExitStack() as claims:
        fit_threads(core_limit(), chosen)  # until `launched` restores them
        opened = on_main(accelerator, lambda: open_directory(recipe, directory, resume, claims))
        if opened is None:
            if progress is not None and accelerator.is_main_process:
                progress(Update(message=f"This run is finished: {directory / 'report.md'}"))
            stop.begin_shutdown()
            return on_main(accelerator, lambda: read_result(directory))
        if not opened.longer:
            status.begin()
        recipe = opened.recipe
        check_shared(accelerator, directory)
        built = build_planned_run(
            recipe,
            accelerator,
            directory,
            stop,
            progress=progress,
            continues=continued(directory, resume),
        )
        run, micro_batch = built.run, built.micro_batch
        for change in opened.changes:
            run.tracker.say(change)
        with run_memory(run, accelerator, "loading", "reading the checkpoint"):
            state = resume_run(run, accelerator, resume, opened.earlier)
        if opened.longer:  # until the checkpoint was read, the directory held a finished run
            status.begin()
            on_main(accelerator, lambda: write_settings(recipe, directory))
        energy = on_main(accelerator, lambda: begin_session(directory, state.step))
        run.tracker.say(summary(run, accelerator))
        if micro_batch is not None:
            run.tracker.say(f"  {micro_batch.reason}")
        for note in run.notes:
            run.tracker.say(f"  note: {note}")
        start_trackers(
            accelerator,
            directory,
            recipe.tracking.trackers,
            settings=flatten(recipe.model_dump(mode="json")),
            text=dump_yaml(recipe),
            step=state.step,
            say=run.tracker.say,
        )
        run.tracker.say(f"  {disk_space(run, accelerator)}")
        if recipe.push is not None and accelerator.is_main_process:
            for note in before_push(recipe.push, verifies=recipe.checkpoint.verify_export):
                run.tracker.say(f"  note: {note}")
        if accelerator.is_main_process:
            memories = None if micro_batch is None else micro_batch.memories
            run.tracker.expect(planned_for_run(run, accelerator, memories))
        status.begin_training(state.step, run.num_steps)
        if state.step == 0:
            measure_before_training(run, accelerator, state)
        with training_time(), stop.at_boundaries(), run.saver.closing():
            state = train_loop(run, accelerator, state)
            done = finished(run, state)
            if accelerator.is_main_process:
                end_session(directory, energy)
            if not done:
                message = (
                    f"stopped at step {state.step} of {run.num_steps}; the same command resumes"
                )
                run.tracker.say(message)
                status.write("stopped", stop.code, state.step, message)
                stop.begin_shutdown()  # a second signal must not overwrite this status
        run.tracker.close()
        if done:
            with run_memory(run, accelerator, "saving", "measuring and writing the model"):
                finish(run, accelerator, state)
            stop.begin_shutdown()
            status.write("done", DONE, state.step, "done")
            stop.code = DONE  # a signal from here on does not change it
        pushes = done and accelerator.is_main_process
        result = on_main(accelerator, lambda: read_result(directory))
    if recipe.push is not None and pushes:  # the other ranks have left: they wait for nobody
        push_finished(recipe.push, directory, progress)
    return result
