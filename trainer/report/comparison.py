"""Runs side by side: mean and standard deviation over seeds, of groups that differ in a setting."""

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from trainer.process.finished_runs import FinishedRun, find_runs
from trainer.report.document import table
from trainer.report.groups import differing, group_runs
from trainer.report.markup import as_markdown

Group = dict[str, Any]
SPLITS = ("validation", "test")
MAX_NAME = 60
"""Characters of a label that a table still has room for."""


def compare(directories: tuple[Path, ...], by: str | None = None) -> dict[str, Any]:
    """Returns groups of runs, with mean, sample standard deviation, n and values of each metric.

    Groups are those of `group_runs`; their metrics are those of the best validation step. `metric`
    is the one that decides which step that is, `findings` says whether groups differ by more than
    the spread, `warnings` why they may not compare, `tensorboard` is the folder of all the runs.
    Raises TrainerError for what `find_runs` and `group_runs` refuse.
    """
    runs, left_out = find_runs(directories)
    groups = group_runs(runs, by)
    summaries = [
        _summarise(settings, members, position)
        for position, (settings, members) in enumerate(groups, start=1)
    ]
    evaluation = runs[0].results["recipe"]["evaluation"]
    parent = os.path.commonpath([run.directory.absolute() for run in runs])
    return {
        "metric": evaluation["metric"],
        "groups": summaries,
        "findings": _findings(summaries, by, evaluation["metric"], evaluation["mode"]),
        "warnings": [*left_out, *_warnings(runs, [members for _, members in groups], by)],
        "tensorboard": str(directories[0]) if len(directories) == 1 else parent,
    }


def markdown(comparison: dict[str, Any]) -> str:
    """Returns a comparison as Markdown tables that read well on a terminal, and its sentences."""
    groups: list[Group] = comparison["groups"]
    splits = [split for split in SPLITS if any(group[split] for group in groups)]
    zero_shot = [split for split in SPLITS if any(split in group["zero_shot"] for group in groups)]
    titles = ["metric", "group", *(f"zero-shot {split}" for split in zero_shot), *splits]
    rows: list[list[str]] = []
    for metric in dict.fromkeys(name for one in groups for split in splits for name in one[split]):
        for group in groups:
            cells = [_cell(group["zero_shot"].get(split, {}), metric) for split in zero_shot]
            for split in splits:
                before = group["baseline"].get(split, {}).get(metric)
                after = _cell(group[split], metric)
                cells.append(f"{before['mean']:.4f} → {after}" if before and after else after)
            rows += [[as_markdown(metric), as_markdown(group["name"]), *cells]] * any(cells)
    run_titles = ["group", "seeds", "best step", "seconds", "peak memory (MiB)"]
    run_rows = [
        [
            as_markdown(group["name"]),
            ", ".join(map(str, group["seeds"])),
            _spread(group["best_step"], 1, 1),
            _spread(group["seconds"], 1, 1),
            _spread(group["peak_memory_bytes"], 0, 2**20),
        ]
        for group in groups
    ]
    lines = ["Baseline → best validation step: mean ± standard deviation (number of runs)", ""]
    lines += [*table(titles, rows), ""] * bool(rows)
    lines += [*table(run_titles, run_rows), ""]
    notes = [f"{one['name']}: {one['label']}" for one in groups if one["name"] != one["label"]]
    notes += [*comparison["findings"], *comparison["warnings"]]
    lines += [*(f"- {as_markdown(note)}" for note in notes), ""] * bool(notes)
    return "\n".join([*lines, f"Curves: tensorboard --logdir {comparison['tensorboard']}"])


def _cell(metrics: dict[str, Any], metric: str) -> str:
    """Returns the summary of a metric, nothing where it was not measured or only counts."""
    summary = metrics.get(metric)
    if summary is None or all(isinstance(value, int) for value in summary["values"]):
        return ""
    return f"{_spread(summary, 4, 1)} ({summary['n']})"


def _spread(summary: dict[str, Any], digits: int, unit: float) -> str:
    """Returns mean ± standard deviation, the mean alone of a single run."""
    numbers = [summary["mean"], *([] if summary["std"] is None else [summary["std"]])]
    return " ± ".join(f"{number / unit:.{digits}f}" for number in numbers)


def _summarise(settings: dict[str, Any], runs: list[FinishedRun], position: int) -> Group:
    texts = {
        key: value if isinstance(value, str) and value.isprintable() else json.dumps(value)
        for key, value in settings.items()
    }
    label = ", ".join(f"{key}={text}" for key, text in texts.items()) or "all runs"
    results = [run.results for run in runs]
    best = _by_split(runs, [one["best"]["metrics"] for one in results])
    return {
        "name": label if len(label) <= MAX_NAME and "|" not in label else f"group {position}",
        "label": label,
        "values": settings,
        "runs": [str(run.directory) for run in runs],
        "seeds": [run.recipe["seed"] for run in runs],
        "best_step": _summary([one["best"]["step"] for one in results]),
        **{split: best.get(split, {}) for split in SPLITS},
        "baseline": _by_split(runs, [one["baseline"] for one in results]),
        "zero_shot": _by_split(runs, [one.get("zero_shot") or {} for one in results]),
        "seconds": _summary([one["seconds"]["total"] for one in results]),
        "peak_memory_bytes": _summary([one["peak_memory_bytes"] for one in results]),
    }


def _by_split(runs: list[FinishedRun], measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the summary of each number by split and metric; the deciding metric comes first."""
    deciding = runs[0].recipe["evaluation.metric"]
    summaries: dict[str, Any] = {}
    for split in SPLITS:
        metrics = [one.get(split, {}) for one in measured]
        names = dict.fromkeys([deciding, *(name for one in metrics for name in one)])
        numbers = {
            name: [one[name] for one in metrics if _is_number(one.get(name))]
            for name in names
            if name != "seconds"
        }
        found = {name: _summary(values) for name, values in numbers.items() if values}
        summaries |= {split: found} if found else {}
    return summaries


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _summary(values: Sequence[float]) -> dict[str, Any]:
    spread = stdev(values) if len(values) > 1 else None
    return {"mean": fmean(values), "std": spread, "n": len(values), "values": values}


def _findings(groups: list[Group], by: str | None, metric: str, mode: str) -> list[str]:
    """Returns whether the best group differs from each other one by more than the spread."""
    split = "test" if all(metric in group["test"] for group in groups) else "validation"
    measured = [group for group in groups if group[split].get(metric, {}).get("std") is not None]
    findings: list[str] = []
    if by != "seed" and any(len(group["runs"]) == 1 for group in groups):
        findings.append("a spread needs several seeds; train with others, such as --seeds 1,2,3")
    measured.sort(key=lambda group: group[split][metric]["mean"], reverse=mode == "max")
    for other in measured[1:]:
        best = measured[0]
        one, two = best[split][metric], other[split][metric]
        difference, spread = abs(one["mean"] - two["mean"]), max(one["std"], two["std"])
        findings.append(
            f"{split} {metric} of {best['name']} is {difference:.4f} better than that of "
            f"{other['name']}, {'more than' if difference > spread else 'within'} "
            f"the spread (standard deviation {spread:.4f})"
        )
    return findings


def _warnings(
    runs: list[FinishedRun], groups: list[list[FinishedRun]], by: str | None
) -> list[str]:
    """Returns, in a sentence each, why the means of the groups may not compare."""
    warnings: list[str] = []
    seeds = [[run.recipe["seed"] for run in members] for members in groups]
    listed = dict.fromkeys(", ".join(map(str, sorted(set(one)))) for one in seeds)
    if len(listed) > 1 and by != "seed":
        warnings.append(f"the groups have different seeds: {'; '.join(listed)}")
    others = [key for one in groups for key in differing([run.recipe for run in one])]
    others = [key for key in dict.fromkeys(others) if key != "seed"]
    if others:
        more = f" and {len(others) - 5} more keys" if len(others) > 5 else ""
        warnings.append(
            f"runs of one group also differ in {', '.join(others[:5])}{more}, "
            f"so its spread is not that of seeds alone"
        )
    elif any(len(set(one)) < len(one) for one in seeds):
        warnings.append("a group holds the same seed twice, which makes its spread too small")
    if any(run.recipe.get("checkpoint.keep_best") is False for run in runs):
        warnings.append("where checkpoint.keep_best is false, the last step stands for the best")
    deciding = list(dict.fromkeys(run.recipe["evaluation.metric"] for run in runs))
    if len(deciding) > 1:
        warnings.append(
            f"the best steps were chosen by different metrics, {' and '.join(deciding)}; "
            f"groups are compared by {deciding[0]}"
        )
    for name in dict.fromkeys(name for run in runs for name in run.results["scales"]):
        scales = {run.results["scales"][name] for run in runs if name in run.results["scales"]}
        if len(scales) > 1:
            warnings.append(f"{name} has the scales {' and '.join(sorted(scales))}")
    return warnings
