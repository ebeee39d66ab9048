"""Measurements before the first step: zero-shot answers, and the baseline of each split."""

from accelerate import Accelerator

from trainer.assembly.memory_advice import run_memory
from trainer.evaluation.evaluate import evaluate
from trainer.evaluation.zero_shot import measure_zero_shot
from trainer.run import Run
from trainer.state import TrainState


def measure_before_training(run: Run, accelerator: Accelerator, state: TrainState) -> None:
    """Records the zero-shot metrics, if the task has any, and the baseline, if the recipe asks."""
    with run_memory(run, accelerator, "loading", "answering without training (zero-shot)"):
        for split, metrics in measure_zero_shot(run, accelerator).items():
            run.tracker.log_evaluation(state, 0, metrics, split=f"zero_shot_{split}")
    validation = None
    measured = ("validation", "test") if run.recipe.evaluation.baseline else ()
    for split in measured:
        if split in run.splits:
            file = run.directory / "predictions" / f"baseline-{split}.jsonl"
            metrics = evaluate(run, accelerator, split, predictions=file, validation=validation)
            run.tracker.log_evaluation(state, 0, metrics, split=split)
            validation = metrics if split == "validation" else validation
