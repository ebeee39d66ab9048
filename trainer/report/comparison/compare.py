"""Runs side by side: mean and standard deviation over seeds, for each group of settings."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from trainer.metrics.numbers import finite
from trainer.process.finished_runs import FinishedRun, find_runs
from trainer.report.comparison.groups import differing, group_runs
from trainer.report.comparison.requirements import Requirement, check
from trainer.report.diagnosis.scales import mixed_scales
from trainer.report.markdown import table
from trainer.report.markup import as_markdown
from trainer.report.recorded import SPLITS
from trainer.report.statistics.closed_forms import t_interval

Group = dict[str, Any]
MAX_NAME = 60
"""Maximum characters of a label in a table."""


def compare(
    directories: tuple[Path, ...], by: str | None = None, requirements: Sequence[Requirement] = ()
) -> dict[str, Any]:
    """Returns groups of runs, with mean, sample standard deviation, t interval (`low`, `high`), n
    and values of each metric.

    `group_runs` forms the groups; metrics are those at the best validation step. `metric` is the
    name of the deciding metric, `findings` says which groups differ by more than the spread,
    `requirements` says which of them hold, `warnings` why groups may not be comparable, and
    `tensorboard` is the folder of all runs. Raises the errors of `find_runs`, `group_runs` and
    `check`.
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
        "requirements": [check(requirement, runs) for requirement in requirements],
        "warnings": [*left_out, *_warnings(runs, [members for _, members in groups], by)],
        "tensorboard": str(directories[0]) if len(directories) == 1 else parent,
    }


def markdown(comparison: dict[str, Any]) -> str:
    """Returns a comparison as Markdown, with tables that also align as plain text."""
    groups: list[Group] = comparison["groups"]
    splits = [split for split in SPLITS if any(group[split] for group in groups)]
    zero_shot = [split for split in SPLITS if any(split in group["zero_shot"] for group in groups)]
    titles = ["metric", "group", *(f"zero-shot {split}" for split in zero_shot), *splits]
    rows: list[list[str]] = []
    metrics = dict.fromkeys(name for group in groups for split in splits for name in group[split])
    for metric in metrics:
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
    listed = notes(comparison)
    lines += [*(f"- {as_markdown(note)}" for note in listed), ""] * bool(listed)
    return "\n".join([*lines, f"Curves: tensorboard --logdir {comparison['tensorboard']}"])


def notes(comparison: dict[str, Any]) -> list[str]:
    """Returns what a shortened name of a group stands for, findings and warnings, a line each."""
    groups: list[Group] = comparison["groups"]
    renamed = [group for group in groups if group["name"] != group["label"]]
    names = [f"{group['name']}: {group['label']}" for group in renamed]
    return [*names, *comparison["findings"], *comparison["warnings"]]


def _cell(metrics: dict[str, Any], metric: str) -> str:
    """Returns the summary of a metric, empty if it was not measured or is a count."""
    summary = metrics.get(metric)
    if summary is None or all(isinstance(value, int) for value in summary["values"]):
        return ""
    return f"{_spread(summary, 4, 1)} ({summary['n']})"


def _spread(summary: dict[str, Any], digits: int, unit: float) -> str:
    """Returns mean ± standard deviation; for a single run, the mean alone."""
    numbers = [summary["mean"], *([] if summary["std"] is None else [summary["std"]])]
    return " ± ".join(f"{number / unit:.{digits}f}" for number in numbers)


def _summarise(settings: dict[str, Any], runs: list[FinishedRun], position: int) -> Group:
    texts = {
        key: value if isinstance(value, str) and value.isprintable() else json.dumps(value)
        for key, value in settings.items()
    }
    label = ", ".join(f"{key}={text}" for key, text in texts.items()) or "all runs"
    results = [run.results for run in runs]
    best = _by_split(runs, [result["best"]["metrics"] for result in results])
    return {
        "name": label if len(label) <= MAX_NAME and "|" not in label else f"group {position}",
        "label": label,
        "values": settings,
        "runs": [str(run.directory) for run in runs],
        "seeds": [run.recipe["seed"] for run in runs],
        "best_step": _summary([result["best"]["step"] for result in results]),
        **{split: best.get(split, {}) for split in SPLITS},
        "baseline": _by_split(runs, [result["baseline"] for result in results]),
        "zero_shot": _by_split(runs, [result.get("zero_shot") or {} for result in results]),
        "seconds": _summary([result["seconds"]["total"] for result in results]),
        "peak_memory_bytes": _summary([result["peak_memory_bytes"] for result in results]),
    }


def _by_split(runs: list[FinishedRun], measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the summary of each number by split and metric, the deciding metric first."""
    deciding = runs[0].recipe["evaluation.metric"]
    summaries: dict[str, Any] = {}
    for split in SPLITS:
        by_run = [metrics.get(split, {}) for metrics in measured]
        names = dict.fromkeys([deciding, *(name for metrics in by_run for name in metrics)])
        numbers = {
            name: [metrics[name] for metrics in by_run if finite(metrics.get(name)) is not None]
            for name in names
            if name != "seconds"
        }
        summary = {name: _summary(values) for name, values in numbers.items() if values}
        summaries |= {split: summary} if summary else {}
    return summaries


def _summary(values: Sequence[float]) -> dict[str, Any]:
    spread = stdev(values) if len(values) > 1 else None
    low, high = t_interval(values) or (None, None)
    return {
        "mean": fmean(values),
        "std": spread,
        "low": low,
        "high": high,
        "n": len(values),
        "values": values,
    }


def _findings(groups: list[Group], by: str | None, metric: str, mode: str) -> list[str]:
    """Returns, for each other group, whether the best one differs from it by more than the
    spread."""
    split = "test" if all(metric in group["test"] for group in groups) else "validation"
    measured = [group for group in groups if group[split].get(metric, {}).get("std") is not None]
    findings: list[str] = []
    if by != "seed" and any(len(group["runs"]) == 1 for group in groups):
        findings.append("a spread needs several seeds; train with --seeds 1,2,3, for example")
    measured.sort(key=lambda group: group[split][metric]["mean"], reverse=mode == "max")
    for group in measured[1:]:
        best = measured[0]
        first, second = best[split][metric], group[split][metric]
        difference = abs(first["mean"] - second["mean"])
        spread = max(first["std"], second["std"])
        if not difference:
            findings.append(f"{split} {metric} of {best['name']} and {group['name']} is the same")
            continue
        findings.append(
            f"{split} {metric} of {best['name']} is {difference:.4f} better than that of "
            f"{group['name']}, {'more than' if difference > spread else 'within'} "
            f"the spread (standard deviation {spread:.4f})"
        )
    return findings


def _warnings(
    runs: list[FinishedRun], groups: list[list[FinishedRun]], by: str | None
) -> list[str]:
    """Returns why the means of the groups may not be comparable, a sentence each."""
    return [
        *_about_seeds(groups, by),
        *_about_settings(groups),
        *_about_deciding_metrics(runs),
        *_about_scales(runs),
    ]


def _about_seeds(groups: list[list[FinishedRun]], by: str | None) -> list[str]:
    seeds = [sorted({run.recipe["seed"] for run in members}) for members in groups]
    different = dict.fromkeys(", ".join(map(str, members)) for members in seeds)
    if len(different) < 2 or by == "seed":
        return []
    return [f"the groups have different seeds: {'; '.join(different)}"]


def _about_settings(groups: list[list[FinishedRun]]) -> list[str]:
    """Returns why the spread of a group is not that of seeds alone."""
    differences = [key for members in groups for key in differing([run.recipe for run in members])]
    keys = [key for key in dict.fromkeys(differences) if key != "seed"]
    if keys:
        more = f" and {len(keys) - 5} more keys" if len(keys) > 5 else ""
        return [
            f"runs of the same group also differ in {', '.join(keys[:5])}{more}, "
            f"so its spread is not that of seeds alone"
        ]
    if any(len({run.recipe["seed"] for run in members}) < len(members) for members in groups):
        return ["a group holds the same seed twice, which makes its spread too small"]
    return []


def _about_deciding_metrics(runs: list[FinishedRun]) -> list[str]:
    warnings: list[str] = []
    if any(run.recipe.get("checkpoint.keep_best") is False for run in runs):
        warnings.append("runs with checkpoint.keep_best: false show the last step as the best")
    deciding = list(dict.fromkeys(run.recipe["evaluation.metric"] for run in runs))
    if len(deciding) > 1:
        warnings.append(
            f"the best steps were chosen by different metrics, {' and '.join(deciding)}; "
            f"groups are compared by {deciding[0]}"
        )
    return warnings


def _about_scales(runs: list[FinishedRun]) -> list[str]:
    return [finding.sentence() for finding in mixed_scales([run.results["scales"] for run in runs])]
