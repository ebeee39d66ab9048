"""Plot: a figure before it is drawn, and the look that all figures share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#010203"
"""The colour of text and axes while a figure is drawn: that of the text around it in a page."""
BLUE, ORANGE, GREEN, PURPLE, GREY = "#3f7fc1", "#c9601a", "#3a8a4d", "#8f63c9", "#808488"
"""Each has a contrast of at least 3:1 to white and to the page's dark background."""
SERIES = (BLUE, ORANGE, GREEN, PURPLE)
WIDTH, HEIGHT = 340.0, 216.0
"""Size of a figure in points, unless its content asks for another."""
SETTINGS: dict[str, Any] = {
    "svg.hashsalt": "trainer",
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "pdf.fonttype": 42,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is the same on every machine
    "font.size": 10.5,
    "text.usetex": False,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 10.0,
    "ytick.labelsize": 10.0,
    "legend.fontsize": 10.0,
    "legend.frameon": False,
    "legend.handlelength": 1.5,
    "legend.columnspacing": 1.4,
    "legend.borderpad": 0.1,
    "lines.linewidth": 1.4,
    "path.simplify": False,
    "figure.dpi": 72.0,
}
"""matplotlib's settings; those of the user's matplotlibrc do not change a report."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure before it is drawn."""

    name: str
    """Name of its files, without an ending, and the beginning of its ids in a page."""
    title: str
    description: str
    """What the figure shows, in words and figures, for those who cannot see it."""
    draw: Callable[["Axes"], None]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = 58.0
    """Points between the left edge and the axes."""
    legend: bool = False
    """Whether the names of the lines stand above the axes."""
