"""The parts of a model's card: what the hub reads, and the sections on results, data and limits."""

from typing import Any

import yaml

from trainer.report.card.model_index import (
    METRICS,
    TASKS,
    dataset_of,
    interval,
    is_on_hub,
    model_index,
    num_examples,
    reported_metrics,
    reported_split,
)
from trainer.report.markup import as_markdown


def metadata(name: str, results: dict[str, Any], library: str = "transformers") -> dict[str, Any]:
    """Returns what the hub reads at the head of a card; `library` loads the model."""
    model, source = results["recipe"]["model"], results["recipe"]["data"]["source"]
    metrics = dict.fromkeys(METRICS.get(name, name) for name in reported_metrics(results))
    values = {
        "library_name": library,
        "base_model": model["name_or_path"] if is_on_hub(model["name_or_path"]) else None,
        "base_model_relation": _relation(library) if is_on_hub(model["name_or_path"]) else None,
        "pipeline_tag": TASKS.get(results["recipe"]["task"]["name"]),
        "datasets": [source["hub"]] if is_on_hub(source["hub"]) else None,
        "metrics": list(metrics),
        "model-index": model_index(name, results),
    }
    return {key: value for key, value in values.items() if value}


def _relation(library: str) -> str:
    """Returns what the hub calls a model that was made from another."""
    return "adapter" if library == "peft" else "finetune"


def as_yaml(value: Any) -> str:
    """Returns YAML in ASCII, in which no text can end the block that it stands in."""
    return yaml.safe_dump(value, sort_keys=False, width=10**6)


def sections(results: dict[str, Any]) -> list[str]:
    """Returns the sections of a card that a run's results fill, each heading and text a part."""
    return [
        *_measured(results),
        *_data(results),
        *_training(results),
        *_limits(results),
        *_warnings(results),
    ]


def _measured(results: dict[str, Any]) -> list[str]:
    """Returns the section with the metrics, their intervals, and what they are compared with."""
    split, metrics = reported_split(results), reported_metrics(results)
    if split is None or not metrics:
        return []
    kind = results["baseline_is"]
    baseline = "baseline" if kind == "pretrained" else f"baseline ({kind})"
    columns = {baseline: results["baseline"], "zero-shot": results.get("zero_shot") or {}}
    columns = {title: measured[split] for title, measured in columns.items() if measured.get(split)}
    intervals = {metric: interval(results, metric) or "" for metric in metrics}
    titles = [split, "value", *["95 % interval"] * any(intervals.values()), *columns]
    lines = [_row(titles), _row(["---"] * len(titles))]
    for metric, value in metrics.items():
        cells = [as_markdown(metric), f"{value:.4f}"]
        cells += [intervals[metric]] * any(intervals.values())
        cells += [_number(measured.get(metric)) for measured in columns.values()]
        lines.append(_row(cells))
    dataset = dataset_of(results)
    place = f"{dataset['name']}, split {dataset['split']}"
    step = results[results["model"]]["step"]
    count = num_examples(results)
    examples = "" if count is None else f"; {count:,} examples"
    sentence = f"Measured after step {step} on {as_markdown(place)}{examples}."
    return ["## Results", sentence, "\n".join(lines)]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else ""


def _data(results: dict[str, Any]) -> list[str]:
    """Returns the section with what each split held; empty for runs that did not record it."""
    lines = [_row(["split", "rows", "examples", "cut to length", "rows also in train"])]
    lines.append(_row(["---"] * 5))
    for split, facts in results.get("data", {}).items():
        overlap = facts.get("overlap_with_train", {}).get("exact")
        counts = [facts["rows"], facts["examples"], facts["num_truncated"]]
        shown = [*(f"{count:,}" for count in counts), "" if overlap is None else f"{overlap:,}"]
        lines.append(_row([split, *shown]))
    return ["## Data", "\n".join(lines)] if len(lines) > 2 else []


def _training(results: dict[str, Any]) -> list[str]:
    recipe, counts = results["recipe"], results["parameters"]
    batch, optimizer, schedule = recipe["batch"], recipe["optimizer"], recipe["schedule"]
    length = f"{schedule['epochs']} epochs" if schedule["epochs"] else f"{schedule['steps']} steps"
    facts = [
        f"parameters: {counts['total']:,}, of which {counts['trainable']:,} trained",
        f"{length}, with {batch['global_batch_size']} examples in a step, of at most "
        f"{batch['max_seq_length']} tokens",
        f"{optimizer['name']}, learning rate {optimizer['learning_rate']:g}, {schedule['name']}",
        f"{results['processes']} process{'es' * (results['processes'] != 1)}, "
        f"{results['precision']}, {results['seconds']['total']:.1f} s",
    ]
    return ["## Training", "\n".join(f"- {fact}" for fact in facts)]


def _limits(results: dict[str, Any]) -> list[str]:
    length = results["recipe"]["batch"]["max_seq_length"]
    limits = [f"It was trained on inputs of at most {length:,} tokens, and longer ones were cut."]
    if reported_split(results) is not None:
        limits.append("The results hold for the data named above; other texts may give others.")
    return ["## Limits", "\n".join(f"- {limit}" for limit in limits)]


def _warnings(results: dict[str, Any]) -> list[str]:
    lines = "\n".join(f"- {as_markdown(warning)}" for warning in results["warnings"])
    return ["## Warnings", lines] if lines else []
