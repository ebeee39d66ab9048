"""Figures as PNG files, for what shows no SVG."""

from collections.abc import Sequence
from io import BytesIO

from trainer.report.figures.drawing import figure_of, settings
from trainer.report.figures.plot import Plot

DOTS_PER_INCH = 120


def as_png(plots: Sequence[Plot]) -> dict[str, bytes]:
    """Returns the plots as PNG files on a white ground, by name."""
    files: dict[str, bytes] = {}
    with settings():
        for plot in plots:
            file = BytesIO()
            figure_of(plot).savefig(file, format="png", dpi=DOTS_PER_INCH, facecolor="white")
            files[plot.name] = file.getvalue()
    return files
