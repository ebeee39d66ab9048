"""The outputs of a finished run: results.json, the exported model, predictions and the report."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from trainer.checkpoints.load import load_weights
from trainer.checkpoints.record import verify
from trainer.distributed.collectives import on_main
from trainer.engines.sharding import whole_model
from trainer.evaluation.evaluate import evaluate
from trainer.exports.bounds import bounds_of
from trainer.exports.gate import ExportError, verify_export
from trainer.exports.measured import Measured, measure_if_asked, usage_section
from trainer.files.durable import write_json
from trainer.files.plain import remove, sealed
from trainer.metrics.averages import with_macro_averages
from trainer.models.quiet import quiet_transformers
from trainer.planning.measured import beside_plan
from trainer.process.run_entries import writing_to
from trainer.report.analysis import analysis
from trainer.report.answers.examples import write_examples
from trainer.report.card.model_card import complete_card, write_card
from trainer.report.diagnosis import IN_NOTES
from trainer.report.documents import plots_of, write_report
from trainer.report.facts import facts
from trainer.report.figures.png import as_png
from trainer.report.learned import without_gradient
from trainer.report.recorded import record_of
from trainer.report.report import report_of
from trainer.report.staged_export import failed_folder, give_names, stage
from trainer.report.trainer_state import write_trainer_state
from trainer.run import Run
from trainer.state import TrainState
from trainer.tasks.finding import Finding
from trainer.tracking.metric_lines import metrics_at, read_lines


def finish(run: Run, accelerator: Accelerator, state: TrainState) -> None:
    """Evaluates the best and the last step, exports the best (or the last, if the recipe does not
    keep the best), and writes the results and the report.

    Collective: every rank calls it. Raises ExportError, after everything else is written, if the
    exported model is not the one that was measured: model/ is then not replaced.
    """
    directory = run.directory
    lines = on_main(accelerator, lambda: read_lines(directory / "metrics.jsonl"))
    lines = with_macro_averages(lines)  # an earlier version may have written some of them
    on_main(accelerator, lambda: _remove_answers_of_last_step(directory))
    final: dict[str, Any] = {"step": state.step, "epoch": run.order.epoch_of(state.step - 1) + 1}
    final["metrics"] = metrics_at(lines, state.step)

    best: dict[str, Any] = final
    use_best = run.recipe.checkpoint.keep_best and state.best_step is not None
    if use_best and state.best_step is not None and state.best_step != state.step:
        if "test" in run.splits:
            file = directory / "predictions" / "final-test.jsonl"
            final["metrics"]["test"] = evaluate(
                run,
                accelerator,
                "test",
                predictions=file,
                validation=final["metrics"].get("validation"),
            )
        checkpoint = run.store.path(state.best_step)
        on_main(accelerator, lambda: verify(checkpoint))
        load_weights(checkpoint, run.objective, run.parameters)
        best = {"step": state.best_step, "epoch": run.order.epoch_of(state.best_step - 1) + 1}
        best["metrics"] = metrics_at(lines, state.best_step)
    measured = [name for name in ("validation", "test") if name in run.splits]
    for split in measured:
        file = directory / "predictions" / f"{split}.jsonl"
        validation = best["metrics"].get("validation")
        metrics = evaluate(run, accelerator, split, predictions=file, validation=validation)
        best["metrics"].setdefault(split, metrics)

    unmoved = without_gradient(run.objective, run.optimizer, run.parameters)
    before = metrics_at(lines, 0)
    on_main(accelerator, lambda: write_examples(run, before, best["metrics"], measured))
    zero_shot = {
        name: before[f"zero_shot_{name}"] for name in measured if f"zero_shot_{name}" in before
    }
    own_peak = torch.tensor([run.tracker.peak_memory()], device=accelerator.device)
    peak: Any = accelerator.gather(own_peak)
    seconds = _seconds(lines)
    results = {
        "recipe": run.recipe.model_dump(mode="json"),
        "parameters": vars(run.parameter_counts),
        "baseline": {name: before[name] for name in measured if name in before},
        "baseline_is": run.baseline_kind,
        **({"zero_shot": zero_shot} if run.task.zero_shot is not None else {}),
        "epochs": _epochs(lines),
        "best": best,
        "final": final,
        "model": "best" if use_best else "final",
        "seconds": seconds,
        "peak_memory_bytes": int(peak.max()),
        "plan": beside_plan(
            run.tracker.planned,
            memory_bytes=int(peak.max()),
            seconds=sum(seconds["per_epoch"]),
            num_steps=state.step,
        ),
        "processes": accelerator.num_processes,
        "precision": run.precision,
        "skipped_steps": state.skipped_steps,
        "scales": dict(run.task.scales),
        "warnings": [
            *run.notes,
            *_lost(run, lines),
        ],
    }

    with whole_model(run.objective):
        measured_answers = measure_if_asked(run, accelerator)

        def write() -> None:
            with writing_to(directory), quiet_transformers():
                _write(run, results | facts(run, unmoved), measured_answers)

        on_main(accelerator, write)


def _remove_answers_of_last_step(directory: Path) -> None:
    """Removes them if the run has finished before, with fewer steps."""
    with writing_to(directory):
        remove(directory / "predictions" / "final-test.jsonl")


def _write(run: Run, results: dict[str, Any], measured: Measured | str) -> None:
    directory = run.directory
    staged = stage(run)
    bounds = bounds_of(run)
    verdict = verify_export(run, measured, bounds, staged["model"], staged.get("adapter"))
    results["export"] = verdict.as_record()
    results |= analysis(record_of(directory, results))
    results["warnings"] += [
        Finding(**finding).sentence()
        for finding in results["diagnosis"]
        if finding["severity"] != "note" and finding["code"] not in IN_NOTES
    ]
    report = report_of(record_of(directory, results))
    write_card(staged["model"], directory.name, results, usage_section(run, measured))
    if "adapter" in staged:
        complete_card(staged["adapter"], directory.name, results)
    give_names(run, staged, verdict)
    write_report(report, directory, ["html", "md"])
    write_json(directory / "results.json", sealed(results))
    write_trainer_state(report.run)
    text = (directory / "report.md").read_text("utf-8")
    if run.tracker.shows_reports:
        run.tracker.log_report(text, as_png(plots_of(report)))
    run.tracker.say(text)
    if verdict.failed:
        raise ExportError(
            f"the exported model is not the one that was measured: {verdict.why_not}. Nothing is "
            f"lost: checkpoints and results are kept, model/ is as it was before. Please report "
            f"this with {failed_folder(run, 'model')}"
        )
    run.tracker.say(f"model: {directory / 'model'}\nresults: {directory / 'results.json'}")


def _lost(run: Run, lines: list[dict[str, Any]]) -> list[str]:
    """Returns a sentence if the first lines of metrics.jsonl are missing."""
    if not run.recipe.evaluation.baseline or any(line["step"] == 0 for line in lines):
        return []
    if not {"validation", "test"} & run.splits.keys():
        return []
    first = lines[0]["step"] if lines else run.num_steps
    return [
        f"metrics.jsonl begins with step {first}, because the file was removed or the run began "
        f"with a checkpoint of another run: this report lacks the baseline and the metrics before "
        f"that step"
    ]


def _epochs(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns a record of each evaluation after the baseline and of the training before it."""
    epochs: list[dict[str, Any]] = []
    seconds, tokens = 0.0, 0.0
    for line in lines:
        if line["split"] == "train":
            seconds += line["seconds"]
            tokens += line["seconds"] * line["tokens_per_second"]
        elif line["split"] == "validation" and line["step"] > 0:
            epochs.append(
                {
                    "epoch": line["epoch"],
                    "step": line["step"],
                    "train_loss": line["train_loss"],
                    "validation": metrics_at([line], line["step"])["validation"],
                    "seconds": seconds,
                    "tokens_per_second": tokens / max(seconds, 1e-9),
                    "peak_memory_bytes": line["peak_memory_bytes"],
                }
            )
            seconds, tokens = 0.0, 0.0
    return epochs


def _seconds(lines: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns seconds: in total, of training in each epoch, and of evaluation."""
    trained = [line for line in lines if line["split"] == "train"]
    evaluated = sum(line["seconds"] for line in lines if line["split"] != "train")
    per_epoch = [0.0] * max((line["epoch"] for line in trained), default=0)
    for line in trained:
        per_epoch[line["epoch"] - 1] += line["seconds"]
    return {
        "total": sum(per_epoch) + evaluated,
        "per_epoch": per_epoch,
        "evaluation": evaluated,
    }
