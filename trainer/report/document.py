"""Results as documents: report.md, report.html and the model card."""

import html
from pathlib import Path
from typing import Any


def write_report(directory: Path, results: dict[str, Any]) -> None:
    """Writes report.md and report.html: baseline beside result, epochs, parameters, warnings."""
    text = report(directory.name, results)
    (directory / "report.md").write_text(text, "utf-8")
    page = f'<!doctype html><meta charset="utf-8"><title>{html.escape(directory.name)}</title>'
    (directory / "report.html").write_text(f"{page}<pre>{html.escape(text)}</pre>\n", "utf-8")


def report(name: str, results: dict[str, Any]) -> str:
    """Returns the report as Markdown."""
    best, final, counts = results["best"], results["final"], results["parameters"]
    lines = [f"# {name}", ""]
    columns = {
        "baseline": results["baseline"],
        f"best (step {best['step']})": best["metrics"],
        f"final (step {final['step']})": final["metrics"],
    }
    for split in ("validation", "test"):
        measured = {title: metrics.get(split, {}) for title, metrics in columns.items()}
        names = [
            key
            for key, v in measured[f"final (step {final['step']})"].items()
            if isinstance(v, float) and key != "seconds"
        ]
        if names:
            rows = [[key, *(_number(one.get(key)) for one in measured.values())] for key in names]
            lines += [f"## {split}", "", *_table([split, *measured], rows), ""]
    rows = [
        [
            str(one["epoch"]),
            str(one["step"]),
            _number(one["train_loss"]),
            _number(one["validation"]["loss"]),
            f"{one['seconds']:.1f}",
        ]
        for one in results["epochs"]
    ]
    if rows:
        titles = ["epoch", "step", "train loss", "validation loss", "seconds of the epoch"]
        lines += ["## Epochs", "", *_table(titles, rows), ""]
    lines += ["## Run", ""]
    lines += [
        f"- parameters: {counts['total']:,}, of which {counts['trainable']:,} trained; "
        f"{counts['stored']:,} elements stored",
        f"- {results['processes']} process(es), {results['precision']}, "
        f"{results['seconds']['total']:.1f} s, peak memory "
        f"{results['peak_memory_bytes'] / 2**20:,.0f} MiB a process",
        f"- model/ holds the {results['model']} step",
    ]
    if results["warnings"]:
        lines += ["", "## Warnings", "", *(f"- {warning}" for warning in results["warnings"])]
    return "\n".join(lines) + "\n"


def model_card(name: str, results: dict[str, Any]) -> str:
    """Returns the README.md of an exported model."""
    model, tuning = results["recipe"]["model"], results["recipe"]["tuning"]["mode"]
    base = model["name_or_path"] or model["architecture"]["model_type"]
    header = f"---\nlibrary_name: transformers\nbase_model: {base}\n---\n\n"
    if model["name_or_path"] is None or Path(base).is_dir():
        header = "---\nlibrary_name: transformers\n---\n\n"
    shown = Path(base).name if Path(base).is_dir() else base
    origin = f"Base: {shown}, {model['initialization']}; tuning: {tuning}."
    return f"{header}{origin}\n\n{report(name, results)}"


def _table(titles: list[str], rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in [titles, *rows]) for i in range(len(titles))]
    rule = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [titles, rule, *rows]
    ]


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.4f}"
