"""What was measured on a split: every metric before and after, intervals, and tests."""

from typing import Any

from trainer.report.report import Report
from trainer.report.tables.table import Cell, Column, Number, Table, columns, digits_of


def titles(report: Report) -> dict[str, str]:
    """Returns the title of each column of numbers that the run has, by its name in statistics."""
    results = report.results
    best, final, kind = results["best"], results["final"], results["baseline_is"]
    found: dict[str, str] = {}
    if any("majority" in values for values in _all_metrics(report)):
        found["majority"] = "majority"
    if results["baseline"]:
        found["baseline"] = "baseline" if kind == "pretrained" else f"baseline ({kind})"
    if results.get("zero_shot"):
        found["zero_shot"] = "zero-shot"
    if results["model"] != "best":
        return found | {"final": f"final (step {final['step']})"}
    if best["step"] == final["step"]:
        return found | {"best": f"best and final (step {best['step']})"}
    return found | {"best": f"best (step {best['step']})", "final": f"final (step {final['step']})"}


def measured_table(report: Report, split: str) -> Table | None:
    """Returns the metrics of a split; None if it was not measured after training."""
    results = report.results
    measured = {
        "baseline": results["baseline"].get(split, {}),
        "zero_shot": (results.get("zero_shot") or {}).get(split, {}),
        "best": results["best"]["metrics"].get(split, {}),
        "final": results["final"]["metrics"].get(split, {}),
    }
    statistics = report.statistics.get(split, {}).get("metrics", {})
    names = [
        name for name in measured["final"] | measured["best"] | statistics if name != "seconds"
    ]
    shown = {
        key: title
        for key, title in titles(report).items()
        if measured.get(key) or any(key in values for values in statistics.values())
    }
    rows: list[list[Cell]] = []
    for name in names:
        estimates = {
            key: {"value": measured.get(key, {}).get(name)} | statistics.get(name, {}).get(key, {})
            for key in shown
        }
        cells = _cells(list(estimates.values()), results["scales"].get(name))
        if any(cell is not None for cell in cells):
            rows.append([name, *cells])
    if not rows:
        return None
    deciding = results["recipe"]["evaluation"]["metric"]
    return Table(
        name=f"results-{split}",
        caption=_caption(report, split),
        columns=(
            Column(title=split),
            *(Column(title=title, numeric=True) for title in shown.values()),
        ),
        rows=rows,
        marked=frozenset(i for i, row in enumerate(rows) if row[0] == deciding),
    )


def tests_table(report: Report, split: str) -> Table | None:
    """Returns the tests of a split; None if it has none."""
    tests = report.statistics.get(split, {}).get("tests", [])
    if not tests:
        return None
    scales = report.results["scales"]
    counted = any(test["won"] is not None for test in tests)
    rows: list[list[Cell]] = []
    for test in tests:
        digits = digits_of(scales.get(test["metric"]), test["difference"])
        rows.append(
            [
                test["metric"],
                f"{test['before']} → {test['after']}".replace("zero_shot", "zero-shot"),
                test["method"],
                Number(value=test["difference"], digits=digits, low=test["low"], high=test["high"]),
                Number(value=test["p"], digits=3, is_p=True),
                Number(value=test["p_adjusted"], digits=3, is_p=True),
                *([test["won"], test["lost"]] if counted else []),
            ]
        )
    return Table(
        name=f"tests-{split}",
        caption=f"Tests on the same {split} examples; p adjusted by Holm's method",
        columns=columns(
            ["metric", "compared", "test"],
            ["difference (95 % interval)", "p", "p adjusted", *["fixed", "broken"] * counted],
        ),
        rows=rows,
    )


def detectable(report: Report, split: str) -> str:
    """Returns a sentence with the smallest difference that the examples could have shown; empty
    if it is not known."""
    statistics = report.statistics.get(split, {})
    scales = report.results["scales"]
    values = [
        f"{name} {value:.{digits_of(scales.get(name))}f}"
        for name, value in statistics.get("detectable", {}).items()
        if value is not None
    ]
    if not values:
        return ""
    number = f"{statistics['num_examples']:,}"
    return (
        f"Smallest change that {number} examples show in four of five repetitions: "
        f"{', '.join(values)}. Models that agree more often need less."
    )


def zero_shot_note(report: Report, split: str) -> str:
    """Returns how many questions the zero-shot numbers are of; empty if it is not a sample."""
    asked = (report.results.get("zero_shot") or {}).get(split, {}).get("total")
    return f"zero-shot: of {asked} questions" if asked else ""


def _caption(report: Report, split: str) -> str:
    statistics = report.statistics.get(split) or {}
    if statistics.get("num_examples") is None:  # nothing was recorded, or no example is judged
        return f"Metrics on the {split} split"
    clustered = statistics.get("clustered_by")
    by = ", resampled by article or passage" if clustered else ""
    return f"Metrics on {statistics['num_examples']:,} {split} examples, with 95 % intervals{by}"


def _cells(estimates: list[dict[str, Any]], scale: str | None) -> list[Cell]:
    """Returns the numbers of a metric, all with the same decimals; counts are left out."""
    values = [estimate["value"] for estimate in estimates]
    numbers = [value for value in values if isinstance(value, float)]
    digits = digits_of(scale, max(map(abs, numbers), default=0.0))
    return [
        Number(
            value=estimate["value"],
            digits=digits,
            low=estimate.get("low"),
            high=estimate.get("high"),
        )
        if isinstance(estimate["value"], float)
        else None
        for estimate in estimates
    ]


def _all_metrics(report: Report) -> list[dict[str, Any]]:
    """Returns the estimates of every metric of every split, by column."""
    return [
        values
        for statistics in report.statistics.values()
        for values in statistics["metrics"].values()
    ]
