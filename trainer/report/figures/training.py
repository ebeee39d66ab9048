"""Plots of the training: loss, metric, learning rate, gradient norm, speed and memory."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from trainer.report.figures.curves import (
    Curve,
    checkpoint_steps,
    curve,
    loss_terms,
    restart_steps,
    share_clipped,
)
from trainer.report.figures.plot import BLUE, GREY, INK, ORANGE, SERIES, Plot
from trainer.report.markup import slug
from trainer.report.report import Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FEWEST_POINTS = 4
"""Fewer points are read in the table of evaluations, not in a curve."""
FEWEST_FOR_AXES = 10
"""With fewer logged lines, the loss by tokens and by time looks like that by step."""
FROM_ZERO = ("tokens/s", "GiB")
"""Labels of values that are amounts, so that their axis begins at 0."""
NAMES = {"steps": "step", "tokens": "tokens", "seconds": "time"}

Line = tuple[str, str, Curve, bool]
"""Label, colour, curve, and whether its points are marked."""


def training_plots(report: Report) -> list[Plot]:
    """Returns the curves that a run has enough points for."""
    lines, results = report.run.lines, report.results
    plots: list[Plot] = []
    long = sum(line["split"] == "train" for line in lines) >= FEWEST_FOR_AXES
    for axis, name in NAMES.items() if long else [("steps", NAMES["steps"])]:
        drawn = [
            ("train", BLUE, curve(lines, "train", "loss"), False),
            ("validation", ORANGE, curve(lines, "validation", "loss"), True),
        ]
        plots += _plot(
            report, f"loss-{axis}", f"Loss by {name}" if long else "Loss", "loss", drawn, axis
        )
    terms = loss_terms(lines)
    if len(terms) > 1:
        drawn = [
            (term.removeprefix("loss_"), colour, curve(lines, "train", term), False)
            for term, colour in zip(terms, SERIES, strict=False)
        ]
        plots += _plot(report, "loss-terms", "Training loss by term", "loss", drawn)
    deciding = results["recipe"]["evaluation"]["metric"]
    for name in dict.fromkeys([deciding, "perplexity"]):
        if name != "loss":
            drawn = [(name, ORANGE, curve(lines, "validation", name), True)]
            plots += _plot(report, f"metric-{name}", f"Validation {name}", name, drawn)
    drawn = [("learning rate", BLUE, curve(lines, "train", "learning_rate"), False)]
    plots += _plot(report, "learning-rate", "Learning rate", "learning rate", drawn)
    plots += _gradient_norm(report)
    drawn = [("tokens/s", BLUE, curve(lines, "train", "tokens_per_second"), False)]
    plots += _plot(report, "speed", "Tokens per second", "tokens/s", drawn)
    memory = curve(lines, "validation", "peak_memory_bytes")
    memory = Curve(
        steps=memory.steps,
        tokens=memory.tokens,
        seconds=memory.seconds,
        values=[value / 2**30 for value in memory.values],
    )
    drawn = [("peak memory", BLUE, memory, True)]
    plots += _plot(report, "memory", "Peak memory before each evaluation", "GiB", drawn)
    return plots


def _gradient_norm(report: Report) -> list[Plot]:
    drawn = [("gradient norm", BLUE, curve(report.run.lines, "train", "grad_norm"), False)]
    clipped = share_clipped(report)
    if clipped is None:
        return _plot(report, "gradient-norm", "Gradient norm", "gradient norm", drawn)
    share, number = clipped
    limit = report.results["recipe"]["optimizer"]["max_grad_norm"]
    title = f"Gradient norm; {100 * share:.0f} % of {number:,} logged steps clipped at {limit:g}"
    return _plot(report, "gradient-norm", title, "gradient norm", drawn, limit=limit)


def _plot(
    report: Report,
    name: str,
    title: str,
    label: str,
    drawn: Sequence[Line],
    axis: str = "steps",
    limit: float | None = None,
) -> list[Plot]:
    """Returns the plot of curves; none if no curve has FEWEST_POINTS points."""
    drawn = [line for line in drawn if line[2].values]
    if max((len(line[2].values) for line in drawn), default=0) < FEWEST_POINTS:
        return []
    return [
        Plot(
            name=slug(name),
            title=title,
            description=_described(drawn),
            draw=partial(_draw, report, drawn, label, axis, limit),
            legend=len(drawn) > 1,
        )
    ]


def _described(drawn: Sequence[Line]) -> str:
    parts: list[str] = []
    for label, _, points, _ in drawn:
        first, last = points.values[0], points.values[-1]
        low, high = min(points.values), max(points.values)
        start, end = points.steps[0], points.steps[-1]
        parts.append(
            f"{label}: {first:.4g} at step {start:,.0f}, {last:.4g} at step {end:,.0f}, "
            f"between {low:.4g} and {high:.4g}"
        )
    return "; ".join(parts) + "."


def _draw(
    report: Report,
    drawn: Sequence[Line],
    label: str,
    axis: str,
    limit: float | None,
    axes: "Axes",
) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    unit, x_label = _unit(drawn, axis)
    for name, colour, points, marked in drawn:
        places = [place / unit for place in points.on(axis)]
        marker: dict[str, Any] = {"marker": "o", "markersize": 3.5} if marked else {}
        axes.plot(places, points.values, color=colour, label=name, **marker)
    if limit is not None:
        axes.axhline(limit, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    _mark(report, drawn, axis, unit, axes)
    axes.set_xlabel(x_label)
    axes.set_ylabel(label)
    axes.xaxis.set_major_locator(MaxNLocator(4, integer=axis != "seconds"))
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.xaxis.set_major_formatter(FuncFormatter(_short))
    axes.yaxis.set_major_formatter(FuncFormatter(_short))
    axes.margins(x=0.02)
    if label in FROM_ZERO:
        axes.set_ylim(0, 1.15 * max(max(line[2].values) for line in drawn))


def _mark(report: Report, drawn: Sequence[Line], axis: str, unit: float, axes: "Axes") -> None:
    """Marks the reported step, restarts and checkpoints at the nearest points of the curves."""
    results = report.results
    longest = max((line[2] for line in drawn), key=lambda points: len(points.steps))

    def place(step: float) -> float:
        if axis == "steps":
            return step
        nearest = min(range(len(longest.steps)), key=lambda i: abs(longest.steps[i] - step))
        return longest.on(axis)[nearest] / unit

    reported = results["best" if results["model"] == "best" else "final"]["step"]
    axes.axvline(place(reported), color=INK, linewidth=0.8)
    for step in restart_steps(report):
        axes.axvline(place(step), color=GREY, linewidth=1.0, linestyle=(0, (1, 2)))
    saved = [place(step) for step in checkpoint_steps(report)]
    if saved:
        axes.plot(
            saved,
            [0.0] * len(saved),
            color=GREY,
            linestyle="none",
            marker=2,
            markersize=5,
            transform=axes.get_xaxis_transform(),
        )


def _unit(drawn: Sequence[Line], axis: str) -> tuple[float, str]:
    """Returns how many seconds, tokens or steps the axis counts as one, and its label."""
    if axis != "seconds":
        return 1.0, NAMES[axis]
    last = max(line[2].seconds[-1] for line in drawn)
    for size, name in ((3600.0, "hours"), (60.0, "minutes")):
        if last >= 2 * size:
            return size, name
    return 1.0, "seconds"


def _short(value: float, _position: int | None = None) -> str:
    """Returns a tick's number in few characters, such as 25k or 3e-5."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):g}{letter}"
    if 0 < abs(value) < 1e-3:
        digits, _, power = f"{value:.1e}".partition("e")
        return f"{float(digits):g}e{int(power)}"
    return f"{value:.4g}"
