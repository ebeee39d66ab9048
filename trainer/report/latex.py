"""Tables of a report in LaTeX, for the package booktabs."""

import re

from trainer.report.markup import plain
from trainer.report.tables.table import Table
from trainer.wording import excerpt

LONGEST_CELL = 60
"""Maximum characters of a text in a cell; more would not fit into a page."""
_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    "→": r"$\to$",
    "[": "{[}",  # after the end of a row it would begin an argument, and so would *
    "]": "{]}",
    "*": "{*}",
    "-": "-{}",  # or two of them would become a dash
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_SPECIALS = re.compile("|".join(map(re.escape, _SPECIAL)))


def as_latex(text: object) -> str:
    """Returns LaTeX that typesets a text unchanged, as one line."""
    return _SPECIALS.sub(lambda match: _SPECIAL[match[0]], plain(text))


def latex_table(table: Table) -> str:
    """Returns a table with caption and label; texts longer than LONGEST_CELL are cut."""
    titles = [as_latex(excerpt(column.title, LONGEST_CELL)) for column in table.columns]
    rows = [[as_latex(excerpt(text, LONGEST_CELL)) for text in row] for row in table.texts]
    alignment = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{as_latex(table.caption)}}}",
        rf"  \label{{tab:{table.name}}}",
        rf"  \begin{{tabular}}{{{alignment}}}",
        r"    \toprule",
        *_rows([titles]),
        r"    \midrule",
        *_rows(rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _rows(rows: list[list[str]]) -> list[str]:
    return [f"    {' & '.join(row)} \\\\" for row in rows]
