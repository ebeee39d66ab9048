"""The card of an exported checkpoint, with what the run measured at its step."""

from pathlib import Path
from typing import Any

import torch

from trainer.errors import RunDirectoryError
from trainer.process.finished_runs import read_finished
from trainer.report.card.adapter_card import adapter_card
from trainer.report.card.model_card import complete_card, write_card
from trainer.run import Run
from trainer.tracking.metric_lines import known_lines, metrics_at


def write_model_card(
    folder: Path,
    run: Run,
    use: str,
    step: int,
    record: dict[str, Any],
    dtype: torch.dtype | None,
) -> None:
    """Writes the card of a whole model; `use` is its section about use."""
    made = f"Exported from the checkpoint of step {step} of {run.num_steps}."
    if dtype is not None:
        made += f" The weights were converted to {str(dtype).removeprefix('torch.')}."
    results = results_at(run, step, record)
    write_card(folder, run.directory.name, results, "\n\n".join(filter(None, [made, use])))


def write_adapter_card(folder: Path, run: Run, step: int, record: dict[str, Any]) -> None:
    """Writes the card of adapters alone, beside which their tokenizer lies."""
    more = (
        f"The tokenizer is in this folder, too. Exported from the checkpoint of step {step} of "
        f"{run.num_steps}."
    )
    name = run.directory.name
    text = adapter_card(name, run.recipe, run.model, run.task.auto_model, run.base, more)
    (folder / "README.md").write_text(text, "utf-8")
    complete_card(folder, name, results_at(run, step, record))


def results_at(run: Run, step: int, record: dict[str, Any]) -> dict[str, Any]:
    """Returns results as a card reads them, with the metrics of one step.

    For the step that model/ holds, and for the last one, they are those of results.json; for
    another only what was measured during training is known.
    """
    try:
        results = read_finished(run.directory).results
    except RunDirectoryError:  # it is not finished, or is of an older version
        results = {}
    for name in dict.fromkeys(filter(None, [results.get("model"), "best", "final"])):
        if results.get(name, {}).get("step") == step:
            own = name == results["model"]
            return {**results, "model": name, "summary": results.get("summary", "") if own else ""}
    lines = known_lines(run.directory / "metrics.jsonl", record["metrics"])
    before = metrics_at(lines, 0)
    splits = [name for name in ("validation", "test") if name in run.splits]
    trained = [line["seconds"] for line in lines if line["step"] <= step]
    return {
        "recipe": run.recipe.model_dump(mode="json"),
        "parameters": vars(run.parameter_counts),
        "baseline": {name: before[name] for name in splits if name in before},
        "baseline_is": run.baseline_kind,
        "final": {"step": step, "metrics": metrics_at(lines, step)},
        "model": "final",
        "seconds": {"total": sum(trained)},
        "processes": record["launch"].get("processes", 1),
        "precision": record["launch"].get("precision", run.precision),
        "scales": dict(run.task.scales),
        "warnings": [
            *run.notes,
            f"this is step {step} of {run.num_steps}: its metrics are those measured during "
            f"training",
        ],
    }
