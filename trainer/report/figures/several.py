"""Plots of several runs: their curves together, and every seed of each group."""

from functools import partial
from typing import TYPE_CHECKING, Any

from trainer.report.comparison.several import SeveralRuns
from trainer.report.figures.curves import curve
from trainer.report.figures.plot import GREY, SERIES, Plot
from trainer.report.markup import plain, slug
from trainer.report.recorded import SPLITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_POINTS = 4
"""Fewer evaluations of a run are read in a table."""
LONGEST_LABEL = 28
TEST_FIRST = tuple(reversed(SPLITS))

Line = tuple[str, str, list[float], list[float]]
"""Group, colour, steps, values."""


def several_plots(several: SeveralRuns) -> list[Plot]:
    """Returns validation loss and deciding metric of all runs, and the metric of every seed."""
    metric = several.comparison["metric"]
    plots = [_points(several, split, metric) for split in TEST_FIRST]
    plots += [_curves(several, name) for name in dict.fromkeys([metric, "loss"])]
    return [plot for plot in plots if plot is not None]


def _colours(several: SeveralRuns) -> dict[str, str]:
    """Returns the colour of each group; groups beyond the colours are grey."""
    names = list(several.groups)
    return {name: SERIES[i] if i < len(SERIES) else GREY for i, name in enumerate(names)}


def _curves(several: SeveralRuns, metric: str) -> Plot | None:
    colours, lines = _colours(several), list[Line]()
    for group, labels in several.groups.items():
        for label in labels:
            measured = curve(several.reports[label].run.lines, "validation", metric)
            if len(measured.values) >= FEWEST_POINTS:
                lines.append((group, colours[group], measured.steps, measured.values))
    if not lines:
        return None
    return Plot(
        name=slug(f"curves-{metric}"),
        title=f"Validation {metric} of each run",
        description="; ".join(
            f"{group}: {values[0]:.4g} to {values[-1]:.4g}" for group, _, _, values in lines
        )
        + ".",
        draw=partial(_draw_curves, lines, metric),
        legend=1 < len(several.groups) <= len(SERIES),
    )


def _draw_curves(lines: list[Line], metric: str, axes: "Axes") -> None:
    named = set[str]()
    for group, colour, steps, values in lines:
        label = "_nolegend_" if group in named else _short(group)
        named.add(group)
        axes.plot(steps, values, color=colour, label=label, marker="o", markersize=2.5)
    axes.set_xlabel("step")
    axes.set_ylabel(plain(metric))


def _points(several: SeveralRuns, split: str, metric: str) -> Plot | None:
    colours = _colours(several)
    groups = [
        (group["name"], colours[group["name"]], group[split][metric])
        for group in several.comparison["groups"]
        if metric in group[split]
    ]
    if not groups:
        return None
    return Plot(
        name=f"seeds-{split}",
        title=f"{split.capitalize()} {metric} of every run, with the t interval of the mean",
        description="; ".join(
            f"{name}: {', '.join(f'{value:.4g}' for value in summary['values'])}"
            for name, _, summary in groups
        )
        + ".",
        draw=partial(_draw_points, groups, metric),
        height=64.0 + 26.0 * len(groups),
        left=170.0,
    )


def _draw_points(groups: list[tuple[str, str, dict[str, Any]]], metric: str, axes: "Axes") -> None:
    for place, (_, colour, summary) in enumerate(groups):
        if summary["low"] is not None:
            axes.plot([summary["low"], summary["high"]], [place, place], color=colour, linewidth=1)
        axes.plot(
            summary["values"], [place] * len(summary["values"]), "o", color=colour, markersize=4
        )
    axes.set_yticks(range(len(groups)), [_short(name) for name, _, _ in groups])
    axes.set_ylim(len(groups) - 0.5, -0.5)
    axes.set_xlabel(plain(metric))


def _short(name: str) -> str:
    """Returns the name of a group, without the section of its key, as far as there is room."""
    key, equals, value = plain(name).partition("=")
    text = f"{key.rpartition('.')[2]}{equals}{value}"
    return text if len(text) <= LONGEST_LABEL else f"{text[: LONGEST_LABEL - 1]}…"
