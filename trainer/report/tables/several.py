"""Tables of several runs: their recipes, their metrics by group and by run, and their tests."""

from collections.abc import Iterator
from typing import Any

from trainer.report.comparison.several import Pair, SeveralRuns
from trainer.report.recorded import SPLITS
from trainer.report.tables.table import Cell, Number, Table, columns, digits_of
from trainer.report.tables.training import value_text

TEST_FIRST = tuple(reversed(SPLITS))
MOST_SHOWN = 8
"""Runs up to which the table of recipes has a column each; more are rows."""


def several_tables(several: SeveralRuns) -> list[Table]:
    """Returns every table of several runs, in the order of their documents."""
    tables = [groups_table(several), *metric_tables(several), runs_table(several)]
    tables += [recipes_table(several), tests_table(several), churn_table(several)]
    return [table for table in tables if table is not None]


def groups_table(several: SeveralRuns) -> Table:
    """Returns the members of each group, and what they took."""
    rows: list[list[Cell]] = [
        [
            group["name"],
            ", ".join(map(str, group["seeds"])),
            _mean(group["best_step"], 1),
            _mean(group["seconds"], 1),
            _mean(group["peak_memory_bytes"], 0, 2**20),
        ]
        for group in several.comparison["groups"]
    ]
    return Table(
        name="groups",
        caption="Groups of runs that differ only in their seed, and their means",
        columns=columns(["group", "seeds"], ["best step", "seconds", "peak MiB"]),
        rows=rows,
    )


def metric_tables(several: SeveralRuns) -> list[Table]:
    """Returns, for each split, the metrics of every group: mean over seeds with its t interval,
    standard deviation, and every point."""
    groups, metric = several.comparison["groups"], several.comparison["metric"]
    tables: list[Table] = []
    for split in TEST_FIRST:
        names = dict.fromkeys(name for group in groups for name in group[split])
        rows: list[list[Cell]] = []
        marked: set[int] = set()
        for name in names:
            measured = [group for group in groups if name in group[split]]
            if all(isinstance(x, int) for group in measured for x in group[split][name]["values"]):
                continue
            digits = _digits(several, name, measured[0][split][name]["mean"])
            for group in measured:
                summary = group[split][name]
                before = group["baseline"].get(split, {}).get(name)
                if name == metric:
                    marked.add(len(rows))
                rows.append(
                    [
                        name,
                        group["name"],
                        None if before is None else Number(value=before["mean"], digits=digits),
                        Number(
                            value=summary["mean"],
                            digits=digits,
                            low=_within(several, name, summary["low"]),
                            high=_within(several, name, summary["high"]),
                        ),
                        None
                        if summary["std"] is None
                        else Number(value=summary["std"], digits=digits),
                        ", ".join(f"{value:.{digits}f}" for value in summary["values"]),
                    ]
                )
        if rows:
            tables.append(
                Table(
                    name=f"groups-{split}",
                    caption=f"Metrics on {split}: mean over seeds, with t interval if they differ",
                    columns=columns(
                        ["metric", "group"],
                        ["baseline", "best step", "standard deviation", "each run"],
                    ),
                    rows=rows,
                    marked=frozenset(marked),
                )
            )
    return tables


def runs_table(several: SeveralRuns) -> Table | None:
    """Returns the deciding metric of each run with its own interval; None if it was not kept."""
    metric = several.comparison["metric"]
    rows: list[list[Cell]] = []
    for group, labels in several.groups.items():
        for label in labels:
            report = several.reports[label]
            cells = [_of_run(report.statistics, split, metric, several) for split in TEST_FIRST]
            rows.append([label, group, str(report.results["recipe"]["seed"]), *cells])
    if not any(isinstance(cell, Number) for row in rows for cell in row):
        return None
    return Table(
        name="runs",
        caption=f"{metric} of each run, with the 95 % interval of its own examples",
        columns=columns(["run", "group", "seed"], list(TEST_FIRST)),
        rows=rows,
    )


def recipes_table(several: SeveralRuns) -> Table | None:
    """Returns the recipe keys that differ, and only these."""
    if not several.differences:
        return None
    labels = list(several.reports)
    keys = [key for key, _ in several.differences]
    values = dict(several.differences)
    caption = "Recipe keys that differ between the runs"
    if len(labels) <= MOST_SHOWN:
        rows: list[list[Cell]] = [
            [key, *(_value(values[key], label) for label in labels)] for key in keys
        ]
        return Table(name="recipes", caption=caption, columns=columns(["key", *labels]), rows=rows)
    rows = [[label, *(_value(values[key], label) for key in keys)] for label in labels]
    return Table(name="recipes", caption=caption, columns=columns(["run", *keys]), rows=rows)


def tests_table(several: SeveralRuns) -> Table | None:
    """Returns the tests between pairs of runs; None if no pair answered the same examples."""
    rows: list[list[Cell]] = []
    for pair, split, test in _tests(several.pairs):
        digits = _digits(several, test["metric"], test["difference"])
        rows.append(
            [
                f"{pair.first} → {pair.second}",
                split,
                test["metric"],
                test["method"],
                Number(value=test["difference"], digits=digits, low=test["low"], high=test["high"]),
                Number(value=test["p"], digits=3, is_p=True),
                Number(value=test["p_adjusted"], digits=3, is_p=True),
            ]
        )
    if not rows:
        return None
    return Table(
        name="tests",
        caption=f"Tests between runs on the same examples; p adjusted together for all {len(rows)} "
        "tests by Holm's method",
        columns=columns(
            ["runs", "split", "metric", "test"],
            ["difference (95 % interval)", "p", "p adjusted"],
        ),
        rows=rows,
    )


def churn_table(several: SeveralRuns) -> Table | None:
    """Returns how many answers the second run of each pair fixed and broke; None without any."""
    rows: list[list[Cell]] = [
        [
            f"{pair.first} → {pair.second}",
            split,
            *(counts[kind] for kind in ("fixed", "broken", "still_wrong", "still_right")),
        ]
        for pair in several.pairs
        for split, counts in pair.churn.items()
    ]
    if not rows:
        return None
    return Table(
        name="churn",
        caption="Answers of the second run against those of the first one",
        columns=columns(
            ["runs", "split"], ["fixed", "newly broken", "wrong in both", "right in both"]
        ),
        rows=rows,
    )


def _tests(pairs: list[Pair]) -> Iterator[tuple[Pair, str, dict[str, Any]]]:
    for pair in pairs:
        for split in TEST_FIRST:
            for test in pair.tests.get(split, []):
                yield pair, split, test


def _value(values: dict[str, Any], label: str) -> str:
    return value_text(values[label]) if label in values else ""


def _mean(summary: dict[str, Any], digits: int, unit: float = 1) -> Number:
    return Number(value=summary["mean"] / unit, digits=digits)


def _within(several: SeveralRuns, metric: str, bound: float | None) -> float | None:
    """Returns an end of an interval, moved to the end of the metric's scale if it is beyond."""
    report = next(iter(several.reports.values()))
    most = {"0-1": 1.0, "0-100": 100.0}.get(report.results["scales"].get(metric, ""))
    return bound if bound is None or most is None else min(max(bound, 0.0), most)


def _digits(several: SeveralRuns, metric: str, value: float) -> int:
    report = next(iter(several.reports.values()))
    return digits_of(report.results["scales"].get(metric), value)


def _of_run(
    statistics: dict[str, Any], split: str, metric: str, several: SeveralRuns
) -> Number | None:
    values = statistics.get(split, {}).get("metrics", {}).get(metric, {})
    measured = values.get("best") or values.get("final")
    if not measured or measured["value"] is None:
        return None
    return Number(
        value=measured["value"],
        digits=_digits(several, metric, measured["value"]),
        low=measured["low"],
        high=measured["high"],
    )
