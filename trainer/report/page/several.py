"""The page of several runs, as one HTML file like that of a single run."""

from collections.abc import Sequence

from trainer.report.comparison.several import SeveralRuns
from trainer.report.figures.drawing import Drawn
from trainer.report.page.templates import template
from trainer.report.tables import several as tables


def several_page(several: SeveralRuns, figures: Sequence[Drawn]) -> str:
    """Returns the page of several runs. Text from data, recipes and names is escaped."""
    return template("several.html.jinja").render(
        several=several,
        mattering=[[finding] for finding in several.findings],
        groups=tables.groups_table(several),
        metrics=tables.metric_tables(several),
        runs=tables.runs_table(several),
        recipes=tables.recipes_table(several),
        tests=tables.tests_table(several),
        churn=tables.churn_table(several),
        points=[figure for figure in figures if figure.name.startswith("seeds-")],
        curves=[figure for figure in figures if figure.name.startswith("curves-")],
    )
