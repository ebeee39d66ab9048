"""Text from data, recipes and file names, escaped so that Markdown shows it unchanged."""

import re

_DIRECTIONS = r"\u2028\u2029\u202a-\u202e\u2066-\u2069"
_HALVES = r"\ud800-\udfff"  # of characters, which cannot be written as UTF-8
_CONTROL = re.compile(rf"[\x00-\x1f\x7f-\x9f{_DIRECTIONS}{_HALVES}]")
_INVISIBLE = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_DIRECTIONS}{_HALVES}]")
_LONE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def plain(text: object) -> str:
    """Returns a text as one line, without control characters, which a terminal would execute."""
    return _CONTROL.sub(" ", str(text))


def plain_lines(text: object) -> str:
    """Returns a text without control characters other than tabs and the ends of its lines."""
    return _INVISIBLE.sub(" ", str(text).replace("\r\n", "\n"))


def as_markdown(text: object) -> str:
    """Returns Markdown that shows a text unchanged, without tags, links, table cells or emphasis.

    An underscore between letters, as in the name of a metric, has no meaning in Markdown and stays,
    and so do a `<` before a space and a `>` inside a line: a terminal shows the text as it is, too.
    """
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", plain(text))
    escaped = re.sub(r"&(?=#?\w+;)", "&amp;", escaped)
    escaped = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", escaped)
    return re.sub(r"^(\s*)([#+>-])", r"\1\\\2", _LONE_UNDERSCORE.sub(r"\\_", escaped))


def slug(name: str) -> str:
    """Returns a name in lower-case letters, digits and hyphens, which fits a file name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "data"
