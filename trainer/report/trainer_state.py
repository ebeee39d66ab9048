"""trainer_state.json: a finished run in the format that Hugging Face's Trainer leaves."""

import math
from typing import Any

from trainer.files.durable import write_json
from trainer.report.recorded import RecordedRun
from trainer.tracking.metric_lines import POSITION, metrics_at


def write_trainer_state(run: RecordedRun) -> None:
    """Writes trainer_state.json into the run directory."""
    write_json(run.directory / "trainer_state.json", trainer_state(run))


def trainer_state(run: RecordedRun) -> dict[str, Any]:
    """Returns the fields of transformers' TrainerState, from what the run recorded.

    `log_history` has a record of each training line and of each evaluation of the validation split.
    `epoch` counts fractions of an epoch if the number of steps in one is known, and is otherwise
    the number of the epoch. The loss of a training line is that of its step, and not a mean.
    Floating point operations are not counted: `total_flos` is 0.
    """
    results, recipe = run.results, run.recipe
    final, schedule = results["final"], recipe["schedule"]
    num_steps = run.status.get("num_steps")
    max_steps = num_steps if type(num_steps) is int else final["step"]
    per_epoch = _steps_per_epoch(run, max_steps)
    tokens = [line["tokens"] for line in run.lines if isinstance(line.get("tokens"), int)]
    every = recipe["evaluation"]["every"]
    micro_batch = recipe["batch"]["micro_batch_size"]
    return {
        "epoch": _epoch(final["step"], final["epoch"], per_epoch),
        "global_step": final["step"],
        "max_steps": max_steps,
        "logging_steps": recipe["tracking"]["log_every_steps"],
        "eval_steps": every if isinstance(every, int) else per_epoch or max_steps,
        "save_steps": recipe["checkpoint"]["every_steps"] or per_epoch or max_steps,
        "train_batch_size": micro_batch if isinstance(micro_batch, int) else None,
        "num_train_epochs": schedule["epochs"]
        or (math.ceil(max_steps / per_epoch) if per_epoch else final["epoch"]),
        "num_input_tokens_seen": tokens[-1] if tokens else 0,
        "total_flos": 0,
        "log_history": [
            record for line in run.lines if (record := _logged(line, per_epoch)) is not None
        ],
        **_best(results),
        "is_local_process_zero": True,
        "is_world_process_zero": True,
        "is_hyper_param_search": False,
        "trial_name": None,
        "trial_params": None,
        "stateful_callbacks": {},
    }


def _logged(line: dict[str, Any], per_epoch: int | None) -> dict[str, Any] | None:
    """Returns the record of a line; None if the Trainer has no such record."""
    position = {"epoch": _epoch(line["step"], line["epoch"], per_epoch), "step": line["step"]}
    if line["split"] == "train":
        times = ("samples", "tokens", "seconds", "tokens_per_second")
        values = {key: line[key] for key in line if key not in (*POSITION, *times)}
        return {**_numbers(values), **position}
    if line["split"] != "validation":
        return None
    values = dict(metrics_at([line], line["step"])["validation"])
    seconds = values.pop("seconds", None)
    values = {f"eval_{name}": value for name, value in values.items()}
    return {**_numbers({**values, "eval_runtime": seconds}), **position}


def _numbers(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value
        for name, value in values.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _best(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the best step; a run that keeps no best step has none."""
    if results["model"] != "best":
        return {"best_metric": None, "best_global_step": None, "best_model_checkpoint": None}
    best, metric = results["best"], results["recipe"]["evaluation"]["metric"]
    return {
        "best_metric": best["metrics"].get("validation", {}).get(metric),
        "best_global_step": best["step"],
        "best_model_checkpoint": f"checkpoints/step-{best['step']:08d}",
    }


def _steps_per_epoch(run: RecordedRun, max_steps: int) -> int | None:
    """Returns the number of steps in an epoch; None if an old run does not say."""
    counted = run.results.get("data", {}).get("train", {}).get("examples")
    epochs = run.recipe["schedule"]["epochs"]
    if type(counted) is int and counted > 0:
        return math.ceil(counted / run.recipe["batch"]["global_batch_size"])
    return max(max_steps // epochs, 1) if epochs else None


def _epoch(step: int, number: int, per_epoch: int | None) -> float:
    return float(number) if per_epoch is None else step / per_epoch
