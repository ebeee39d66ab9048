"""Text from data, recipes and file names, escaped so that Markdown shows it unchanged."""

import re

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LONE_UNDERSCORE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def plain(text: object) -> str:
    """Returns a text as one line, without control characters, which a terminal would execute."""
    return _CONTROL.sub(" ", str(text))


def as_markdown(text: object) -> str:
    """Returns Markdown that shows a text unchanged, without tags, links, table cells or emphasis.

    An underscore between letters, as in the name of a metric, has no meaning in Markdown and stays.
    """
    escaped = re.sub(r"([\\`*\[\]|~])", r"\\\1", plain(text))
    escaped = escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"^(\s*)([#+-])", r"\1\\\2", _LONE_UNDERSCORE.sub(r"\\_", escaped))
