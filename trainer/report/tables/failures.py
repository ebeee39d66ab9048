"""Tables about answers: what training fixed and broke, and where the answers are wrong."""

from typing import Any

from trainer.report.report import Report
from trainer.report.tables.table import Cell, Number, Table, columns, digits_of

LARGEST_MATRIX = 12
"""Maximum labels of a confusion matrix that is shown whole."""
MOST_CONFUSED = 20
"""Number of pairs of labels that are shown of a larger one."""


def churn_table(report: Report) -> Table | None:
    """Returns how many answers training changed, by split; None if it is not known."""
    rows: list[list[Cell]] = [
        [split, *(churn[key] for key in ("fixed", "broken", "still_wrong", "still_right"))]
        for split, found in report.failures.items()
        if (churn := found.get("churn")) is not None
    ]
    if not rows:
        return None
    return Table(
        name="churn",
        caption="Answers before and after training",
        columns=columns(
            ["split"], ["fixed", "newly broken", "still wrong", "right before and after"]
        ),
        rows=rows,
    )


def classes_table(report: Report, split: str) -> Table | None:
    """Returns precision, recall and F1 of each class, the rarest last; None without classes."""
    results = report.results
    metrics = results["best" if results["model"] == "best" else "final"]["metrics"].get(split, {})
    classes: dict[str, dict[str, Any]] = metrics.get("per_class") or {}
    scores = ("precision", "recall", "f1")
    known = {
        label: values
        for label, values in classes.items()
        if all(isinstance(values.get(name), int | float) for name in (*scores, "support"))
    }
    if not known:
        return None
    rows: list[list[Cell]] = [
        [
            label,
            *(Number(value=values[name], digits=3) for name in scores),
            values["support"],
            values.get("predicted"),
        ]
        for label, values in sorted(known.items(), key=lambda item: -item[1]["support"])
    ]
    return Table(
        name=f"classes-{split}",
        caption=f"Classes of the {split} split",
        columns=columns(["class"], [*scores, "examples", "answered"]),
        rows=rows,
    )


def confusion_table(report: Report, split: str) -> Table | None:
    """Returns the confusion matrix, with a row for each gold label; None without one.

    Of more than LARGEST_MATRIX labels it returns the pairs that are confused most often.
    """
    confusion = report.failures.get(split, {}).get("confusion")
    if not confusion or not confusion["labels"]:
        return None
    labels, counts = confusion["labels"], confusion["counts"]
    if len(labels) <= LARGEST_MATRIX:
        return Table(
            name=f"confusion-{split}",
            caption=f"Confusion matrix of the {split} split: rows are gold, columns are answers",
            columns=columns(["gold"], labels),
            rows=[[label, *row] for label, row in zip(labels, counts, strict=True)],
        )
    pairs = [
        (count, gold, predicted)
        for gold, row in enumerate(counts)
        for predicted, count in enumerate(row)
        if count and gold != predicted
    ]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    return Table(
        name=f"confusion-{split}",
        caption=f"Labels of the {split} split that are confused most often, of {len(labels):,}",
        columns=columns(["gold", "answered"], ["examples"]),
        rows=[[labels[gold], labels[other], count] for count, gold, other in pairs[:MOST_CONFUSED]],
    )


def reliability_table(report: Report, split: str) -> Table | None:
    """Returns confidence against accuracy by bin; None without confidences."""
    reliability = report.failures.get(split, {}).get("reliability")
    if not reliability:
        return None
    rows: list[list[Cell]] = [
        [
            f"{bin['low']:.2f}–{bin['high']:.2f}",
            bin["count"],
            *(
                None if bin[name] is None else Number(value=bin[name], digits=3)
                for name in ("confidence", "accuracy")
            ),
        ]
        for bin in reliability["bins"]
        if bin["count"]
    ]
    return Table(
        name=f"reliability-{split}",
        caption=(
            f"Confidence against accuracy on the {split} split; "
            f"expected calibration error {reliability['ece']:.3f}"
        ),
        columns=columns(["confidence from–to"], ["examples", "mean confidence", "accuracy"]),
        rows=rows,
    )


def facet_tables(report: Report, split: str) -> list[Table]:
    """Returns, for each facet, how many answers are right by its value."""
    facets = report.failures.get(split, {}).get("facets") or {}
    return [
        Table(
            name=f"facet-{number}-{split}",
            caption=f"Answers of the {split} split by {facet}",
            columns=columns([facet], ["examples", "right", "mean score"]),
            rows=[
                [
                    str(group["value"]),
                    group["count"],
                    group["right"],
                    None if group["score"] is None else Number(value=group["score"], digits=3),
                ]
                for group in groups
            ],
        )
        for number, (facet, groups) in enumerate(facets.items(), start=1)
        if groups
    ]


def thresholds_table(report: Report, split: str) -> Table | None:
    """Returns the metrics at the threshold that was chosen and at the best one; None without
    thresholds."""
    thresholds = report.failures.get(split, {}).get("thresholds")
    if not thresholds or not thresholds["points"]:
        return None
    rows: list[list[Cell]] = []
    for name in ("chosen", "best"):
        if (threshold := thresholds.get(name)) is None:
            continue
        point = min(thresholds["points"], key=lambda point: abs(point["threshold"] - threshold))
        rows.append(
            [
                name,
                Number(value=threshold, digits=4),
                *(Number(value=point[key], digits=digits_of("0-100")) for key in ("exact", "f1")),
            ]
        )
    return Table(
        name=f"thresholds-{split}",
        caption=f"Thresholds of answering on the {split} split, with the metrics nearest to them",
        columns=columns(["threshold"], ["value", "exact", "f1"]),
        rows=rows,
    )
