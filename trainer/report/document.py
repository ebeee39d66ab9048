"""Results as documents: report.md and report.html."""

import html
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trainer.report.markup import as_markdown, plain

NUM_EPOCH_METRICS = 4
"""Maximum metrics in the table of epochs; more would not fit into a line."""


def write_report(directory: Path, results: dict[str, Any]) -> None:
    """Writes report.md and report.html: baseline and result, epochs, parameters and warnings."""
    (directory / "report.md").write_text(report(directory.name, results), "utf-8")
    text = report(directory.name, results, plain)
    page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(directory.name)}</title>'
    (directory / "report.html").write_text(f"{page}<pre>{html.escape(text)}</pre>\n", "utf-8")


def report(name: str, results: dict[str, Any], shown: Callable[[object], str] = as_markdown) -> str:
    """Returns the report as Markdown; `shown` escapes text from data and names."""
    best, final, counts = results["best"], results["final"], results["parameters"]
    lines = [f"# {shown(name)}", ""]
    kind = results["baseline_is"]
    columns = {
        "baseline" if kind == "pretrained" else f"baseline ({kind})": results["baseline"],
        **({"zero-shot": results["zero_shot"]} if results.get("zero_shot") else {}),
        **({f"best (step {best['step']})": best["metrics"]} if results["model"] == "best" else {}),
        f"final (step {final['step']})": final["metrics"],
    }
    for split in ("validation", "test"):
        measured = {title: metrics.get(split, {}) for title, metrics in columns.items()}
        num_asked = measured.get("zero-shot", {}).get("total")  # zero-shot asks only a sample
        names = [
            key
            for key, v in measured[f"final (step {final['step']})"].items()
            if isinstance(v, float) and key != "seconds"
        ]
        if names:
            rows = [
                [shown(key), *(_number(metrics.get(key)) for metrics in measured.values())]
                for key in names
            ]
            lines += [f"## {split}", "", *table([split, *measured], rows), ""]
            lines += [f"zero-shot: of {num_asked} questions", ""] if num_asked else []
    lines += _epochs(results)
    processes = results["processes"]
    lines += ["## Run", ""]
    lines += [
        f"- parameters: {counts['total']:,}, of which {counts['trainable']:,} trained; "
        f"{counts['stored']:,} elements stored",
        f"- {processes} process{'' if processes == 1 else 'es'}, {results['precision']}, "
        f"{results['seconds']['total']:.1f} s, peak memory "
        f"{results['peak_memory_bytes'] / 2**20:,.0f} MiB a process",
        f"- model/ holds the {results['model']} step",
    ]
    if results["warnings"]:
        warnings = (f"- {shown(warning)}" for warning in results["warnings"])
        lines += ["", "## Warnings", "", *warnings]
    return "\n".join(lines) + "\n"


def table(titles: list[str], rows: list[list[str]]) -> list[str]:
    """Returns the lines of a Markdown table, padded so that its columns align as plain text."""
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    rule = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [titles, rule, *rows]
    ]


def _epochs(results: dict[str, Any]) -> list[str]:
    """Returns the table of all evaluations, with NUM_EPOCH_METRICS metrics."""
    epochs = results["epochs"]
    if not epochs:
        return []
    measured = epochs[0]["validation"]
    deciding = results["recipe"]["evaluation"]["metric"]
    names = [name for name, value in measured.items() if isinstance(value, float)]
    shown = [name for name in dict.fromkeys(["loss", deciding, *names]) if name != "seconds"]
    shown = shown[:NUM_EPOCH_METRICS]
    rows = [
        [
            str(epoch["epoch"]),
            str(epoch["step"]),
            _number(epoch["train_loss"]),
            *(_number(epoch["validation"].get(name)) for name in shown),
            f"{epoch['seconds']:.1f}",
            f"{epoch['tokens_per_second']:,.0f}",
            f"{epoch['peak_memory_bytes'] / 2**20:,.0f}",
        ]
        for epoch in epochs
    ]
    titles = ["epoch", "step", "train loss", *(f"validation {name}" for name in shown)]
    return ["## Epochs", "", *table([*titles, "seconds", "tokens/s", "peak MiB"], rows), ""]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"
