"""Several runs as one report: how they were made differently, and whether they differ."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import ConfigError
from trainer.process.finished_runs import find_runs
from trainer.report.answers.failures import churn_between
from trainer.report.comparison.compare import compare
from trainer.report.comparison.groups import differing
from trainer.report.diagnosis.significance import seeds_disagree
from trainer.report.recorded import read_run
from trainer.report.report import MATTERING, Report, report_of
from trainer.report.statistics.closed_forms import holm
from trainer.report.statistics.evidence import between
from trainer.wording import listed

MOST_PAIRS = 12
"""Pairs of runs that are tested; each reads the answers of both."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two runs on the same examples."""

    first: str
    second: str
    tests: dict[str, list[dict[str, Any]]]
    """By split, as `evidence.between` returns them, but adjusted for the tests of all pairs."""
    churn: dict[str, dict[str, int]]
    """By split: answers that only the second run has right (`fixed`), and so on."""


@dataclass(frozen=True, kw_only=True)
class SeveralRuns:
    """Everything that the documents of several runs show."""

    name: str
    comparison: dict[str, Any]
    """As `comparison.compare` returns it."""
    reports: dict[str, Report]
    """By the label of each run."""
    groups: dict[str, list[str]]
    """Name of each group to the labels of its runs."""
    differences: list[tuple[str, dict[str, Any]]]
    """Dotted recipe key to its value in each run that has the key, for keys that differ."""
    pairs: list[Pair]
    num_untested: int
    """Pairs that were left out, because there are more than MOST_PAIRS."""
    findings: list[dict[str, Any]]
    """About all runs, as in the `diagnosis` of results.json."""


def several_of(
    directories: tuple[Path, ...], by: str | None = None, name: str | None = None
) -> SeveralRuns:
    """Returns the report of the finished runs in directories, grouped as `compare` does.

    Raises the errors of `compare` and `read_run`, and ConfigError if there is only one run.
    """
    comparison = compare(directories, by)
    runs, _ = find_runs(directories)
    if len(runs) < 2:
        raise ConfigError(
            f"{listed(directories, 2)}: there is one finished run, and a comparison needs two",
            key="RUN_DIR",
            value=str(directories[0]),
            hint="name another run, or this one's directory once for its own report",
        )
    labels = _labels([run.directory.absolute() for run in runs])
    by_directory = {str(run.directory): label for run, label in zip(runs, labels, strict=True)}
    reports = {
        label: report_of(read_run(run.directory)) for run, label in zip(runs, labels, strict=True)
    }
    recipes = {label: run.recipe for run, label in zip(runs, labels, strict=True)}
    groups = {
        group["name"]: [by_directory[run] for run in group["runs"]]
        for group in comparison["groups"]
    }
    named = _pairs(groups, {label: recipe["seed"] for label, recipe in recipes.items()})
    return SeveralRuns(
        name=name or directories[0].absolute().name,
        comparison=comparison,
        reports=reports,
        groups=groups,
        differences=[
            (key, {label: recipe[key] for label, recipe in recipes.items() if key in recipe})
            for key in differing(list(recipes.values()))
        ],
        pairs=_tested([(reports[one], reports[other]) for one, other in named[:MOST_PAIRS]], named),
        num_untested=max(0, len(named) - MOST_PAIRS),
        findings=[*_of_seeds(comparison), *_of_runs(reports)],
    )


def _labels(directories: list[Path]) -> list[str]:
    """Returns a name for each run: of its directory, with parents if two have the same."""
    depth, names = 1, [path.name for path in directories]
    while max(Counter(names).values()) > 1 and depth < max(len(path.parts) for path in directories):
        depth += 1
        names = ["/".join(path.parts[-depth:]) for path in directories]
    return names


def _pairs(groups: dict[str, list[str]], seeds: dict[str, int]) -> list[tuple[str, str]]:
    """Returns the pairs of runs to test: the first group's run with that of the same seed of each
    other group; of a single group of two, these. Without a common seed, the first runs of the
    groups."""
    first, *others = groups.values()
    if not others:
        return [(first[0], first[1])] if len(first) == 2 else []
    return [
        (one, other)
        for members in others
        for one in first
        for other in members
        if seeds[one] == seeds[other]
    ] or [(first[0], members[0]) for members in others]


def _tested(reports: list[tuple[Report, Report]], names: list[tuple[str, str]]) -> list[Pair]:
    """Returns the pairs with their tests, adjusted for all of them."""
    found = [between(one.run, other.run) for one, other in reports]
    tests = [test for by_split in found for part in by_split.values() for test in part]
    adjusted = iter(holm([test["p"] for test in tests]))
    return [
        Pair(
            first=first,
            second=second,
            tests={
                split: [{**test, "p_adjusted": next(adjusted)} for test in part]
                for split, part in by_split.items()
            },
            churn=churn_between(one.run, other.run),
        )
        for (first, second), (one, other), by_split in zip(names, reports, found, strict=False)
    ]


def _of_runs(reports: dict[str, Report]) -> list[dict[str, Any]]:
    """Returns what is wrong or doubtful about the runs, each finding once, with the number of runs
    that have it."""
    alike: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for report in reports.values():
        for finding in report.findings:
            if finding["severity"] in MATTERING:
                alike.setdefault((finding["code"], finding["split"]), []).append(finding)
    merged = [
        {**same[0], "message": f"{len(same)} of {len(reports)} runs, such as: {same[0]['message']}"}
        for same in alike.values()
    ]
    return sorted(merged, key=lambda finding: MATTERING.index(finding["severity"]))


def _of_seeds(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the groups whose seeds disagree by more than what training brought them."""
    metric = comparison["metric"]
    findings: list[dict[str, Any]] = []
    for group in comparison["groups"]:
        split = "test" if metric in group["test"] else "validation"
        after = group[split].get(metric)
        before = group["baseline"].get(split, {}).get(metric)
        if not after or not before:
            continue
        finding = seeds_disagree(metric, after["values"], after["mean"] - before["mean"])
        if finding is not None:
            findings.append(
                {
                    **finding.as_dict(),
                    "split": split,
                    "message": f"{group['name']}: {finding.message}",
                }
            )
    return findings
