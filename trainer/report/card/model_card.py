"""The card of an exported model: what it is, what it reaches, and how to cite its parts."""

from pathlib import Path
from typing import Any

import yaml

from trainer.report.card.citations import bibtex
from trainer.report.card.model_index import (
    METRICS,
    TASKS,
    dataset_of,
    eval_results,
    interval,
    is_on_hub,
    model_index,
    num_examples,
    reported_metrics,
    reported_split,
)
from trainer.report.markup import as_markdown


def write_card(folder: Path, name: str, results: dict[str, Any], how_to_load: str = "") -> None:
    """Writes README.md and .eval_results/*.yaml into the folder of an exported model."""
    (folder / "README.md").write_text(model_card(name, results, how_to_load), "utf-8")
    for file, entries in eval_results(results).items():
        (folder / ".eval_results").mkdir(exist_ok=True)
        (folder / ".eval_results" / file).write_text(_yaml(entries), "utf-8")


def model_card(name: str, results: dict[str, Any], how_to_load: str = "") -> str:
    """Returns the README.md of an exported model: the metadata that the hub reads, and Markdown.

    `how_to_load` is a section for models that `from_pretrained` alone cannot load. Text from data,
    recipes and names is escaped.
    """
    model, tuning = results["recipe"]["model"], results["recipe"]["tuning"]["mode"]
    base = model["name_or_path"] or model["architecture"]["model_type"]
    shown = base if is_on_hub(base) else Path(base).name
    parts = [
        f"---\n{_yaml(_metadata(name, results))}---",
        f"# {as_markdown(name)}",
        f"Base: {as_markdown(shown)}, {model['initialization']}; tuning: {tuning}.",
        as_markdown(results.get("summary", "")),
        how_to_load,
        *_measured(results),
        *_training(results),
        *_warnings(results),
        "## Citation",
        f"```bibtex\n{bibtex(results)}\n```",
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _metadata(name: str, results: dict[str, Any]) -> dict[str, Any]:
    """Returns what the hub reads at the head of a card."""
    model, source = results["recipe"]["model"], results["recipe"]["data"]["source"]
    metrics = dict.fromkeys(METRICS.get(name, name) for name in reported_metrics(results))
    metadata = {
        "library_name": "transformers",
        "base_model": model["name_or_path"] if is_on_hub(model["name_or_path"]) else None,
        "pipeline_tag": TASKS.get(results["recipe"]["task"]["name"]),
        "datasets": [source["hub"]] if is_on_hub(source["hub"]) else None,
        "metrics": list(metrics),
        "model-index": model_index(name, results),
    }
    return {key: value for key, value in metadata.items() if value}


def _yaml(value: Any) -> str:
    """Returns YAML in ASCII, in which no text can end the block that it stands in."""
    return yaml.safe_dump(value, sort_keys=False, width=10**6)


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


def _warnings(results: dict[str, Any]) -> list[str]:
    lines = "\n".join(f"- {as_markdown(warning)}" for warning in results["warnings"])
    return ["## Warnings", lines] if lines else []
