"""The page: a report as one HTML file that loads nothing and is read without a script."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trainer.report.figures.drawing import Drawn
from trainer.report.figures.training import NAMES
from trainer.report.page.making import making
from trainer.report.page.templates import template
from trainer.report.report import MATTERING, SPLITS, Report
from trainer.report.tables import failures, measured, training

NUM_PRINTED = 3
"""Number of examples of each kind that are printed; the page on a screen has all."""


def page(report: Report, figures: Sequence[Drawn]) -> str:
    """Returns the page of a run. Text from data, recipes and names is escaped."""
    shown_first = tuple(reversed(SPLITS))
    by_name = {figure.name: figure for figure in figures}
    loss = [by_name[f"loss-{axis}"] for axis in NAMES if f"loss-{axis}" in by_name]
    of_answers = ("intervals-", "confusion-", "reliability-", "threshold-")
    return template("report.html.jinja").render(
        report=report,
        about=_about(report),
        mattering=_mattering(report),
        results=[_results(report, split, by_name) for split in shown_first],
        loss=loss,
        curves=[
            figure
            for figure in figures
            if figure not in loss and not figure.name.startswith(of_answers)
        ],
        answers=[_answers(report, split, by_name) for split in shown_first],
        churn=failures.churn_table(report),
        totals=training.totals_table(report),
        parameters=training.parameters_table(report),
        parameter_notes=report.results["parameters"].get("notes", []),
        epochs=training.epochs_table(report),
        diagnosis=training.diagnosis_table(report),
        data=training.data_table(report),
        making=making(report),
    )


def notebook_fragment(report: Report, model: Path | None) -> str:
    """Returns what a notebook shows of a run below its cell: summary, findings and metrics."""
    tables = [measured.measured_table(report, split) for split in reversed(SPLITS)]
    return template("notebook.html.jinja").render(
        report=report,
        mattering=_mattering(report),
        tables=[table for table in tables if table is not None],
        file=report.run.directory / "report.html",
        model=model,
    )


def _about(report: Report) -> list[str]:
    """Returns what was trained on what, in short parts."""
    recipe = report.results["recipe"]
    model, task = recipe["model"], recipe.get("task", {}).get("name")
    name = model["name_or_path"] or model["architecture"]["model_type"]
    shortened = Path(name).name if Path(name).is_absolute() else name
    parts = [task, f"{shortened}, {model['initialization']}", f"tuning: {recipe['tuning']['mode']}"]
    return [part for part in parts if part]


def _mattering(report: Report) -> list[list[dict[str, Any]]]:
    """Returns the findings for the head of the page, those of several splits together."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for finding in report.findings:
        if finding["severity"] in MATTERING:
            groups.setdefault((finding["code"], finding["severity"]), []).append(finding)
    return list(groups.values())


def _results(report: Report, split: str, figures: dict[str, Drawn]) -> dict[str, Any]:
    return {
        "split": split,
        "measured": measured.measured_table(report, split),
        "tests": measured.tests_table(report, split),
        "notes": [
            note
            for note in (
                measured.zero_shot_note(report, split),
                measured.detectable(report, split),
            )
            if note
        ],
        "figure": figures.get(f"intervals-{split}"),
    }


def _answers(report: Report, split: str, figures: dict[str, Drawn]) -> dict[str, Any]:
    found = report.failures.get(split, {})
    confusion = found.get("confusion")
    whole = confusion is not None and len(confusion["labels"]) <= failures.LARGEST_MATRIX
    names = ("reliability", "threshold") if whole else ("confusion", "reliability", "threshold")
    return {
        "split": split,
        "confusion": failures.confusion_table(report, split),
        "shares": _shares(confusion) if confusion is not None and whole else None,
        "classes": failures.classes_table(report, split),
        "reliability": failures.reliability_table(report, split),
        "thresholds": failures.thresholds_table(report, split),
        "facets": failures.facet_tables(report, split),
        "figures": [figures[f"{name}-{split}"] for name in names if f"{name}-{split}" in figures],
        "examples": _examples(report, split),
    }


def _shares(confusion: dict[str, Any]) -> list[list[int]]:
    """Returns each count of a confusion matrix as percent of its row."""
    return [[round(100 * count / max(sum(row), 1)) for count in row] for row in confusion["counts"]]


def _examples(report: Report, split: str) -> dict[str, Any] | None:
    examples = report.examples.get(split)
    if not examples:
        return None
    seen: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    for example in examples:
        seen[example["kind"]] = seen.get(example["kind"], 0) + 1
        facets = {
            name: value for name, value in example["facets"].items() if value != example["gold"]
        }
        printed = seen[example["kind"]] <= NUM_PRINTED
        rows.append({**example, "facets": facets, "printed": printed})
    return {
        "rows": rows,
        "kinds": seen,
        "has_before": any(example["before"] is not None for example in examples),
        "has_confidence": any(example["confidence"] is not None for example in examples),
        "num_printed": NUM_PRINTED,
    }
