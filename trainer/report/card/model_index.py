"""The measured metrics as the hub reads them: `model-index` of a card, and .eval_results/*.yaml."""

import re
from pathlib import Path
from typing import Any

from trainer.metrics.numbers import finite
from trainer.report.markup import slug

TASKS = {
    "classification": "text-classification",
    "question_answering": "question-answering",
    "causal_lm": "text-generation",
    "masked_lm": "fill-mask",
}
"""The hub's name of each task of this package."""
METRICS = {
    "exact": "exact_match",
    "best_exact": "exact_match",
    "best_f1": "f1",
    "rouge1": "rouge",
    "rouge2": "rouge",
    "rougeL": "rouge",
    "rougeLsum": "rouge",
    **{f"{name}_macro": name for name in ("precision", "recall", "f1")},
    "masked_accuracy": "accuracy",
    "next_sentence_accuracy": "accuracy",
    "token_accuracy": "accuracy",
}
"""The hub's name of metrics that are called otherwise here."""


def reported_split(results: dict[str, Any]) -> str | None:
    """Returns the split whose metrics describe the exported model: test, or else validation."""
    measured = results[results["model"]]["metrics"]
    return next((split for split in ("test", "validation") if measured.get(split)), None)


def reported_metrics(results: dict[str, Any]) -> dict[str, float]:
    """Returns the metrics of the exported model on that split that have a scale, and perplexity;
    the deciding metric comes first."""
    split = reported_split(results)
    measured = results[results["model"]]["metrics"].get(split, {}) if split is not None else {}
    deciding = results["recipe"]["evaluation"]["metric"]
    return {
        name: measured[name]
        for name in dict.fromkeys([deciding, *measured])
        if isinstance(measured.get(name), float)
        and finite(measured[name]) is not None
        and (name in results["scales"] or name == "perplexity")
    }


def dataset_of(results: dict[str, Any]) -> dict[str, Any]:
    """Returns the data set of a run as a model-index describes it: type, name and, of one of the
    hub, config, split and revision. Of folders and files only the last name is shown."""
    source, split = results["recipe"]["data"]["source"], reported_split(results)
    if is_on_hub(source["hub"]):
        described = {
            "config": source["config"],
            "split": _split_on_hub(results) or f"{split}, held out",
            "revision": source["revision"],
        }
        known = {key: value for key, value in described.items() if value is not None}
        return {"type": source["hub"], "name": source["hub"], **known}
    if source["builtin"] is not None:
        name = f"built-in {source['builtin']}"
    elif source["hub"] is not None:
        name = Path(source["hub"]).name
    else:
        files = (source["files"] or {}).get(split) or (source["files"] or {}).get("train") or ""
        name = Path(files if isinstance(files, str) else files[0]).name
    return {"type": slug(name), "name": name or "data", "split": split}


def _split_on_hub(results: dict[str, Any]) -> str | None:
    """Returns what the data set itself calls the reported split; None if the run may have held it
    out from another split."""
    split = reported_split(results)
    chosen = results["recipe"]["data"]["split"].get(split)
    if chosen == "auto":
        return split if split == "test" else None
    return chosen if isinstance(chosen, str) else None


def is_on_hub(name: str | None) -> bool:
    """Returns whether a recipe's name of a model or data set is one of the hub, and no folder."""
    return name is not None and not Path(name).is_absolute()


def model_index(name: str, results: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the model-index of a card; empty if no metric was measured."""
    metrics = [
        {"type": METRICS.get(metric, metric), "value": round(value, 6), "name": metric}
        for metric, value in reported_metrics(results).items()
    ]
    task = TASKS.get(results["recipe"]["task"]["name"])
    if not metrics or task is None:
        return []
    described = {"type": task, "name": task.replace("-", " ").capitalize()}
    result = {"task": described, "dataset": dataset_of(results), "metrics": metrics}
    return [{"name": name, "results": [result]}]


def eval_results(results: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Returns the content of each file of .eval_results/ by its name.

    Only the deciding metric on a split of a data set of the hub is such a result: the format names
    a data set, a task in it and one value (huggingface.co/docs/hub/eval-results).
    """
    source, deciding = (
        results["recipe"]["data"]["source"],
        results["recipe"]["evaluation"]["metric"],
    )
    value = reported_metrics(results).get(deciding)
    split = _split_on_hub(results)
    if value is None or split is None or not is_on_hub(source["hub"]):
        return {}
    dataset = {"id": source["hub"], "task_id": source["config"] or "default"}
    if re.fullmatch(r"[0-9a-f]{40}", source["revision"] or ""):
        dataset["revision"] = source["revision"]
    notes = [
        f"{deciding}, scale {results['scales'].get(deciding, 'unbounded')}",
        f"split {split}",
        *([f"{count:,} examples"] if (count := num_examples(results)) is not None else []),
        *([f"95 % interval {text}"] if (text := interval(results, deciding)) else []),
    ]
    entry = {"dataset": dataset, "value": round(value, 6), "notes": "; ".join(notes)}
    return {f"{slug(source['hub'])}.yaml": [entry]}


def interval(results: dict[str, Any], metric: str) -> str | None:
    """Returns the 95 % interval of a reported metric, such as "0.8500 to 0.8950 (Wilson)"; None if
    the run has none."""
    split = results.get("statistics", {}).get(reported_split(results), {})
    estimate = split.get("metrics", {}).get(metric, {}).get(results["model"], {})
    low, high = estimate.get("low"), estimate.get("high")
    if low is None or high is None:
        return None
    return f"{low:.4f} to {high:.4f} ({estimate['method']})"


def num_examples(results: dict[str, Any]) -> int | None:
    """Returns the number of examples of the reported split; None if the run does not say."""
    count = results.get("statistics", {}).get(reported_split(results), {}).get("num_examples")
    return count if isinstance(count, int) else None
