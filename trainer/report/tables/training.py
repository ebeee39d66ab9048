"""Tables about the training: evaluations, parameters, data, and the recipe's own values."""

import json
from typing import Any

from trainer.report.report import Report
from trainer.report.tables.table import Cell, Number, Table, columns, digits_of

NUM_EPOCH_METRICS = 4
"""Maximum metrics in the table of evaluations; more would not fit into a line."""

NUM_DIGITS = 16
"""Number of digits of a SHA-256 that are shown."""


def epochs_table(report: Report) -> Table | None:
    """Returns all evaluations, with NUM_EPOCH_METRICS metrics; None if there are none."""
    results = report.results
    epochs = results["epochs"]
    if not epochs:
        return None
    measured: dict[str, Any] = epochs[0]["validation"]
    deciding = results["recipe"]["evaluation"]["metric"]
    names = [name for name, value in measured.items() if isinstance(value, float)]
    names = [name for name in dict.fromkeys(["loss", deciding, *names]) if name != "seconds"]
    names = names[:NUM_EPOCH_METRICS]
    digits = {
        name: digits_of(
            results["scales"].get(name),
            max((abs(epoch["validation"].get(name) or 0.0) for epoch in epochs), default=0.0),
        )
        for name in names
    }
    rows: list[list[Cell]] = [
        [
            str(epoch["epoch"]),
            epoch["step"],
            _number(epoch["train_loss"], 4),
            *(_number(epoch["validation"].get(name), digits[name]) for name in names),
            Number(value=epoch["seconds"], digits=1),
            Number(value=epoch["tokens_per_second"], digits=0),
            Number(value=epoch["peak_memory_bytes"] / 2**20, digits=0),
        ]
        for epoch in epochs
    ]
    numbers = ["step", "train loss", *(f"validation {name}" for name in names)]
    return Table(
        name="epochs",
        caption="Evaluations, and the training since the one before",
        columns=columns(["epoch"], [*numbers, "seconds", "tokens/s", "peak MiB"]),
        rows=rows,
        marked=frozenset(
            i for i, epoch in enumerate(epochs) if epoch["step"] == results["best"]["step"]
        ),
    )


def parameters_table(report: Report) -> Table | None:
    """Returns the parameters by module; None if the run did not record them."""
    modules = report.results["parameters"].get("modules", [])
    if not modules:
        return None
    rows: list[list[Cell]] = [
        [
            module["name"],
            module["type"],
            module.get("arithmetic") or "",
            module["repeats"],
            module["parameters"],
            module["trainable"],
        ]
        for module in modules
    ]
    return Table(
        name="parameters",
        caption=(
            "Parameters by module, which include those of the modules in it; of repeated modules, "
            "those of one repeat"
        ),
        columns=columns(["module", "type", "arithmetic"], ["repeats", "parameters", "trained"]),
        rows=rows,
    )


def totals_table(report: Report) -> Table:
    """Returns the numbers of parameters of the model, and of its parts if the run recorded them."""
    counts = report.results["parameters"]
    rows: list[list[Cell]] = [
        [name, part["total"], part["trainable"]]
        for name in ("backbone", "head", "adapters")
        if (part := counts.get(name)) and part["total"]
    ]
    rows += [
        ["in total", counts["total"], counts["trainable"]],
        ["elements stored", counts["stored"], None],
    ]
    return Table(
        name="parameter-totals",
        caption="Parameters of the model",
        columns=columns(["part"], ["parameters", "trained"]),
        rows=rows,
    )


def data_table(report: Report) -> Table | None:
    """Returns what each split holds; None if the run did not record it."""
    data = report.results.get("data", {})
    counted = ("rows", "examples", "tokens", "num_truncated", "longest", "num_skipped")
    titles = ["rows", "examples", "tokens", "truncated", "longest", "skipped"]
    if not data:
        return None
    rows: list[list[Cell]] = []
    for split, facts in data.items():
        digest = (facts.get("sha256") or "")[:NUM_DIGITS]
        shared = facts.get("overlap_with_train") or {}
        rows.append([split, digest, *(facts.get(name) for name in counted), shared.get("exact")])
    return Table(
        name="data",
        caption=f"Data by split, with the first {NUM_DIGITS} digits of its SHA-256",
        columns=columns(["split", "SHA-256"], [*titles, "rows also in train"]),
        rows=rows,
    )


def diagnosis_table(report: Report) -> Table | None:
    """Returns every finding, worst first; None if there is none."""
    if not report.findings:
        return None
    return Table(
        name="diagnosis",
        caption="Everything found, worst first",
        columns=columns(["finding", "severity", "about", "message", "figures", "what to try"]),
        rows=[
            [
                finding["code"],
                finding["severity"],
                finding["split"] or "run",
                finding["message"],
                figures_text(finding["figures"]),
                finding["advice"],
            ]
            for finding in report.findings
        ],
    )


def figures_text(figures: dict[str, Any]) -> str:
    """Returns the figures of a finding as text, such as "recall 1, support 375"."""
    return ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )


def value_text(value: Any) -> str:
    """Returns a value of a recipe as YAML and JSON write it; a text as it is."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: Any, digits: int) -> Number | None:
    return Number(value=value, digits=digits) if isinstance(value, float) else None
