"""Plots of answers: metrics with intervals, confusion, reliability and thresholds."""

from functools import partial
from typing import TYPE_CHECKING, Any

from trainer.report.figures.curves import thinned
from trainer.report.figures.plot import BLUE, GREY, HEIGHT, INK, ORANGE, WIDTH, Plot
from trainer.report.markup import plain
from trainer.report.report import SPLITS, Report
from trainer.report.tables.failures import LARGEST_MATRIX
from trainer.report.tables.measured import titles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST_LABEL = 16
STRONGEST = 0.5
"""Opacity of the darkest cell of a confusion matrix, on which text stays readable."""

Estimates = list[tuple[str, dict[str, float]]]


def answer_plots(report: Report) -> list[Plot]:
    """Returns the plots of each split for which the run recorded what they show."""
    plots: list[Plot] = []
    for split in SPLITS:
        found = report.failures.get(split, {})
        plots += _intervals(report, split)
        plots += _confusion(found.get("confusion"), split)
        plots += _reliability(found.get("reliability"), split)
        plots += _thresholds(found.get("thresholds"), split)
    return plots


def _intervals(report: Report, split: str) -> list[Plot]:
    metrics = report.statistics.get(split, {}).get("metrics", {})
    deciding = report.results["recipe"]["evaluation"]["metric"]
    for name in dict.fromkeys([deciding, *metrics]):
        estimates: Estimates = [
            (title, metrics[name][key])
            for key, title in titles(report).items()
            if metrics.get(name, {}).get(key, {}).get("low") is not None
        ]
        if len(estimates) > 1:
            described = "; ".join(
                f"{title} {value['value']:.4g}, {value['low']:.4g} to {value['high']:.4g}"
                for title, value in estimates
            )
            return [
                Plot(
                    name=f"intervals-{split}",
                    title=f"{split.capitalize()} {name} with 95 % intervals",
                    description=f"{described}.",
                    draw=partial(_draw_intervals, estimates, name),
                    height=64.0 + 26.0 * len(estimates),
                    left=160.0,
                )
            ]
    return []


def _draw_intervals(estimates: Estimates, name: str, axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    for place, (_, value) in enumerate(estimates):
        axes.plot([value["low"], value["high"]], [place, place], color=BLUE, linewidth=1.6)
        axes.plot([value["value"]], [place], color=BLUE, marker="o", markersize=5)
    axes.set_yticks(range(len(estimates)), [title for title, _ in estimates])
    axes.set_ylim(len(estimates) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.set_xlabel(plain(name))


def _confusion(confusion: dict[str, Any] | None, split: str) -> list[Plot]:
    if not confusion or len(confusion["labels"]) < 2:
        return []
    labels = confusion["labels"]
    right = sum(row[i] for i, row in enumerate(confusion["counts"]))
    total = sum(map(sum, confusion["counts"]))
    return [
        Plot(
            name=f"confusion-{split}",
            title=f"Confusion matrix of the {split} split",
            description=(
                f"{right:,} of {total:,} examples with {len(labels):,} labels lie on the diagonal, "
                f"where the answer is right."
            ),
            draw=partial(_draw_confusion, labels, confusion["counts"]),
            height=64.0 + 26.0 * len(labels) if len(labels) <= LARGEST_MATRIX else WIDTH,
            left=120.0 if len(labels) <= LARGEST_MATRIX else 58.0,
        )
    ]


def _draw_confusion(labels: list[str], counts: list[list[int]], axes: "Axes") -> None:
    import numpy as np
    from matplotlib.colors import to_rgb

    table = np.asarray(counts, float)
    shares = table / np.maximum(table.sum(1, keepdims=True), 1)
    colours = np.empty((*table.shape, 4))
    colours[..., :3] = to_rgb(BLUE)
    colours[..., 3] = STRONGEST * shares
    axes.set_xlabel("answer")
    if len(labels) > LARGEST_MATRIX:
        axes.set_xlabel("answer, by number of the label")
        axes.imshow(colours, interpolation="none", aspect="auto")
        axes.set_ylabel("gold")
        return
    for (row, column), count in np.ndenumerate(table):
        axes.axvspan(
            column - 0.5,
            column + 0.5,
            ymin=1 - (row + 1) / len(labels),
            ymax=1 - row / len(labels),
            color=BLUE,
            alpha=round(STRONGEST * float(shares[row, column]), 3),
            linewidth=0,
        )
        axes.text(column, row, f"{count:,.0f}", ha="center", va="center")
    names = [_cut(plain(label)) for label in labels]
    short = names if len(labels) <= 3 else [str(i) for i in range(1, len(labels) + 1)]
    rows = names if short is names else [f"{i} {name}" for i, name in enumerate(names, 1)]
    axes.set_xticks(range(len(labels)), short)
    axes.set_yticks(range(len(labels)), rows)
    axes.set_xlim(-0.5, len(labels) - 0.5)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"


def _reliability(reliability: dict[str, Any] | None, split: str) -> list[Plot]:
    if not reliability:
        return []
    bins = [one for one in reliability["bins"] if one["count"] and one["accuracy"] is not None]
    if not bins:
        return []
    described = "; ".join(
        f"confidence {one['confidence']:.2f}, accuracy {one['accuracy']:.2f} ({one['count']:,})"
        for one in bins
    )
    return [
        Plot(
            name=f"reliability-{split}",
            title=f"Reliability on the {split} split; calibration error {reliability['ece']:.3f}",
            description=f"Mean confidence, accuracy and number of examples by bin: {described}.",
            draw=partial(_draw_reliability, bins),
            height=HEIGHT + 24,
        )
    ]


def _draw_reliability(bins: list[dict[str, Any]], axes: "Axes") -> None:
    largest = max(one["count"] for one in bins)
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8)
    places = [one["confidence"] for one in bins]
    axes.plot(places, [one["accuracy"] for one in bins], color=BLUE, linewidth=1.0)
    for one in bins:
        size = 3 + 7 * (one["count"] / largest) ** 0.5
        axes.plot([one["confidence"]], [one["accuracy"]], color=BLUE, marker="o", markersize=size)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("confidence (larger points: more examples)")
    axes.set_ylabel("accuracy")


def _thresholds(thresholds: dict[str, Any] | None, split: str) -> list[Plot]:
    if not thresholds or len(thresholds["points"]) < 2:
        return []
    points = thresholds["points"]
    kept = [points[i] for i in thinned([point["f1"] for point in points])]
    best = max(points, key=lambda point: point["f1"])
    return [
        Plot(
            name=f"threshold-{split}",
            title=f"Metrics by threshold of answering on the {split} split",
            description=(
                f"f1 is highest, {best['f1']:.2f}, at threshold {best['threshold']:.4g}; "
                f"exact is {best['exact']:.2f} there."
            ),
            draw=partial(_draw_thresholds, kept, thresholds),
            legend=True,
        )
    ]


def _draw_thresholds(
    points: list[dict[str, float]], thresholds: dict[str, Any], axes: "Axes"
) -> None:
    places = [point["threshold"] for point in points]
    axes.plot(places, [point["f1"] for point in points], color=BLUE, label="f1")
    axes.plot(places, [point["exact"] for point in points], color=ORANGE, label="exact")
    for name, dashes in (("chosen", (0, ())), ("best", (0, (4, 3)))):
        if thresholds.get(name) is not None:
            axes.axvline(thresholds[name], color=INK, linewidth=0.8, linestyle=dashes, label=name)
    axes.set_xlabel("threshold")
    axes.set_ylabel("metric")
