"""Figures as SVG text that a page can hold inline, and as PDF."""

import io
import re
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from trainer.report.figures.plot import INK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = "system-ui, sans-serif"


def as_svg(figure: "Figure", name: str, title: str, description: str) -> str:
    """Returns a figure as one SVG element whose ids start with `name`.

    Text and axes have the colour of the text around it; title and description are read aloud.
    """
    buffer = io.StringIO()
    nothing: dict[str, Any] = {"Date": None, "Creator": None, "Format": None, "Type": None}
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<defs>\s*</defs>", "", text)
    text = text.replace(INK, "currentColor").replace("'DejaVu Sans'", FONT)
    text = _with_own_ids(text, name)
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'{box.group()} role="img" aria-labelledby={quoteattr(f"{name}-title {name}-desc")} '
        f'stroke-linejoin="round" stroke-linecap="butt">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>{body}\n'
    )


def as_pdf(figure: "Figure") -> bytes:
    """Returns a figure as a PDF without dates; its text is black."""
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if text.get_color() == INK:
            text.set_color("black")
    buffer = io.BytesIO()
    nothing: dict[str, Any] = {"CreationDate": None, "Creator": None, "Producer": None}
    figure.savefig(buffer, format="pdf", transparent=True, metadata=nothing)
    return buffer.getvalue()


def _with_own_ids(text: str, name: str) -> str:
    """Returns SVG without ids that nothing refers to, and with `name` before the others."""
    used = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text))
    kept = {id for pair in used for id in pair if id}

    def replaced(match: re.Match[str]) -> str:
        return f' id="{name}-{match[1]}"' if match[1] in kept else ""

    text = re.sub(r'\sid="([^"]*)"', replaced, text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    return re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
