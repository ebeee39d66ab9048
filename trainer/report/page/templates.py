"""The templates of the page, with what they may call: values are escaped where they are shown."""

from functools import cache
from pathlib import Path
from typing import Any

from trainer.report.markup import plain, plain_lines
from trainer.report.tables.table import Cell, Number, shown
from trainer.wording import excerpt

FOLDER = Path(__file__).parent
LONGEST_TEXT = 1200
"""Maximum characters of a text of an example."""


@cache
def template(name: str) -> Any:
    """Returns a template of this folder."""
    import jinja2
    from markupsafe import Markup

    environment: Any = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "plain": plain,
        "text": _text,
        "shown": _shown,
        "cut": _cut,
        "share": _share,
        "markup": Markup,
    }
    environment.tests["number"] = _is_number
    environment.globals |= {
        "style": Markup((FOLDER / "page.css").read_text("utf-8")),
        "script": Markup((FOLDER / "page.js").read_text("utf-8")),
    }
    return environment.get_template(name)


def _text(value: object) -> str:
    """Returns a text of an example without control characters, cut after LONGEST_TEXT."""
    text = plain_lines(value)
    if len(text) <= LONGEST_TEXT:
        return text
    return f"{text[:LONGEST_TEXT]}… ({len(text):,} characters)"


def _shown(cell: Cell) -> str:
    return plain(shown(cell))


def _cut(value: object, most: int) -> str:
    return excerpt(plain(value), most)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _is_number(cell: Cell) -> bool:
    return isinstance(cell, Number)
