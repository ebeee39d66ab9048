"""Figures of a report, drawn by matplotlib without its global state."""

import warnings
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from trainer.report.figures.plot import SETTINGS, Plot
from trainer.report.figures.svg import as_pdf, as_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BELOW, ABOVE, RIGHT = 40.0, 10.0, 12.0
"""Points between the axes and the edges of a figure."""
LEGEND = 18.0
"""Height of a legend above the axes, in points."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure as a page and a printed document show it."""

    name: str
    title: str
    description: str
    svg: str
    pdf: bytes | None
    """None if it was not asked for."""


def drawn(plots: Sequence[Plot], *, with_pdf: bool = False) -> list[Drawn]:
    """Returns the plots as SVG and, if asked for, PDF. The same plots give the same bytes."""
    if not plots:
        return []
    with settings():
        return [_drawn(plot, with_pdf) for plot in plots]


@contextmanager
def settings() -> Generator[None]:
    """Context manager: matplotlib draws as reports do; its settings are restored afterwards."""
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        values: Any = {**matplotlib.rcParamsDefault, **SETTINGS}
        values.pop("backend")
        matplotlib.rcParams.update(values)
        yield


def figure_of(plot: Plot) -> "Figure":
    """Returns the plot as a figure; within `settings`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(plot.width / 72, plot.height / 72))
    above = ABOVE + LEGEND * plot.legend
    axes = figure.add_axes(
        (
            plot.left / plot.width,
            BELOW / plot.height,
            (plot.width - plot.left - RIGHT) / plot.width,
            (plot.height - BELOW - above) / plot.height,
        )
    )
    plot.draw(axes)
    if plot.legend:
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2)
    return figure


def _drawn(plot: Plot, with_pdf: bool) -> Drawn:
    figure = figure_of(plot)
    svg = as_svg(figure, plot.name, plot.title, plot.description)
    return Drawn(
        name=plot.name,
        title=plot.title,
        description=plot.description,
        svg=svg,
        pdf=as_pdf(figure) if with_pdf else None,
    )
