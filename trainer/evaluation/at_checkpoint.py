"""Evaluation of a checkpoint: chosen by name, verified, loaded and measured."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from trainer.checkpoints.load import check_order, load_weights
from trainer.checkpoints.provenance import check_provenance
from trainer.checkpoints.record import read_record, verify
from trainer.distributed.collectives import on_main
from trainer.errors import CheckpointError, ConfigError
from trainer.evaluation.evaluate import evaluate
from trainer.recipe.schema import Recipe
from trainer.run import Run
from trainer.state import TrainState
from trainer.tracking.metric_lines import known_lines, metrics_at
from trainer.wording import excerpt, listed


def evaluate_checkpoint(
    run: Run, accelerator: Accelerator, split: str, checkpoint: str
) -> dict[str, Any]:
    """Returns the metrics of a checkpoint on one split, with `step` and `split`, on every rank.

    `checkpoint` is "best", "last" or the number of a step. Raises ConfigError if the run does not
    have the split, and CheckpointError if the checkpoint was not kept, is damaged, or was made with
    other data.
    """
    if split not in run.splits:
        raise ConfigError(
            f"--split {excerpt(split)}: the run has {', '.join(run.splits)}",
            key="--split",
            value=split,
        )
    tunes_threshold = run.task.tunes_threshold and "validation" in run.splits
    used = ("train", split, *(("validation",) if tunes_threshold else ()))
    step, record = load_step(run, accelerator, checkpoint, run.recipe, used)
    needed = tunes_threshold and split != "validation"
    validation = _validation(run, accelerator, step, record, needed=needed)
    metrics = evaluate(run, accelerator, split, validation=validation)
    return {"step": step, "split": split, **metrics}


def load_step(
    run: Run, accelerator: Accelerator, checkpoint: str, recipe: Recipe, used: Iterable[str]
) -> tuple[int, dict[str, Any]]:
    """Loads the weights of a checkpoint, and returns its step and its record.

    `checkpoint` is "best", "last" or the number of a step; `recipe` is that of the run directory,
    and `used` are the splits that must not have changed. Raises CheckpointError if the checkpoint
    was not kept, is damaged, or was made with other data.
    """
    step = _step_of(run, accelerator, checkpoint)
    chosen = run.store.path(step)
    on_main(accelerator, lambda: verify(chosen))
    record = on_main(accelerator, lambda: read_record(chosen))
    check_order(chosen, record, run.order_digest)
    check_provenance(chosen, record, recipe, run.splits, used)
    load_weights(chosen, run.objective, run.parameters)
    return step, record


def _step_of(run: Run, accelerator: Accelerator, checkpoint: str) -> int:
    """Returns the step that "best", "last" or a number names.

    Raises CheckpointError if there is no checkpoint of that step.
    """
    newest, passed_over = on_main(accelerator, lambda: run.store.newest(resumable=False))
    if newest is None:
        problem = "; ".join(passed_over) or f"{run.directory} has no checkpoint yet"
        raise CheckpointError(problem, key="--checkpoint", value=checkpoint)
    steps, recorded = on_main(accelerator, lambda: (run.store.steps(), read_record(newest)))
    state = TrainState.of(recorded["state"])
    if passed_over and checkpoint in ("best", "last"):
        raise CheckpointError(
            excerpt(passed_over[0], 300),
            key="--checkpoint",
            value=checkpoint,
            hint=f"name another step with --checkpoint, of {listed(steps, 8)}",
        )
    step = state.step
    if checkpoint == "best":
        best = state.best_step
        step = best if best is not None and run.recipe.checkpoint.keep_best else step
    elif checkpoint != "last":
        step = int(checkpoint) if re.fullmatch(r"[0-9]{1,8}", checkpoint) else -1
    if step not in steps:
        raise CheckpointError(
            f"--checkpoint {excerpt(checkpoint)}: the run keeps the steps {listed(steps, 20)}",
            key="--checkpoint",
            value=checkpoint,
        )
    return step


def _validation(
    run: Run, accelerator: Accelerator, step: int, record: dict[str, Any], *, needed: bool
) -> dict[str, Any] | None:
    """Returns the validation metrics at a step, which hold the threshold that was tuned there.

    They are the recorded ones. If they are `needed` and were not recorded, they are measured.
    """
    file: Path = run.directory / "metrics.jsonl"
    lines = on_main(accelerator, lambda: known_lines(file, record["metrics"]))
    recorded = metrics_at(lines, step).get("validation")
    if recorded is None and needed:
        return evaluate(run, accelerator, "validation")
    return recorded
