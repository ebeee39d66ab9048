"""Formats values for messages: shortened, counted, with units."""

from collections.abc import Iterable
from datetime import timedelta

LONGEST_MESSAGE = 500
"""Maximum characters of a message: texts from data or libraries can be megabytes long."""


def visible(text: str) -> str:
    """Returns text that is safe to show on a terminal: control characters, and others that no one
    sees, are escaped; line breaks and tabs are kept."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )


def excerpt(value: object, most: int = 80) -> str:
    """Returns `value` as text of at most `most` characters, with the full length if it was cut."""
    text = str(value)
    if len(text) <= most:
        return text
    tail = f"… ({len(text):,} characters)"
    return text[: most - len(tail)] + tail


def reason_of(error: BaseException, most: int = 200) -> str:
    """Returns what an error of a library says, in one line that is safe to show; its kind if it
    says nothing."""
    return excerpt(visible(" ".join(str(error).split())) or type(error).__name__, most)


def kind_and_reason(error: BaseException) -> str:
    """Returns the kind of a library's error and, if it says something, `reason_of` it."""
    kind, reason = type(error).__name__, reason_of(error)
    return kind if reason == kind else f"{kind}: {reason}"


def listed(values: Iterable[object], most: int = 8) -> str:
    """Returns the first `most` values, each shortened, separated by commas, and "and N more"."""
    shown = [excerpt(value, 60) for value in values]
    rest = len(shown) - most
    return ", ".join(shown[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def together(origin: str, problems: Iterable[str]) -> str:
    """Returns one message with a line per distinct problem, up to LONGEST_MESSAGE characters, and
    the number of problems left out."""
    message, distinct = f"{excerpt(origin, 100)}: " if origin else "", list(dict.fromkeys(problems))
    for position, problem in enumerate(distinct):
        line = "\n  " * (position > 0) + excerpt(problem, LONGEST_MESSAGE // 2)
        rest = f"\n  and {len(distinct) - position:,} more problems"
        if len(message) + len(line) + len(rest) > LONGEST_MESSAGE:
            return message + rest
        message += line
    return message


def format_bytes(num_bytes: float) -> str:
    """Returns a number of bytes with its unit, such as "1.2 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 999.5:  # which would be rounded to 1e+03
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB" if num_bytes < 999.5 else f"{num_bytes:,.0f} TB"


def format_seconds(seconds: float) -> str:
    """Returns a time as a reader estimates it, in two digits and days in more, such as "12 min"."""
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds / size < 99.5:  # which would be rounded to 1e+02
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 86400:,.0f} days"


def format_span(low: float, high: float) -> str:
    """Returns a range of seconds, such as "2 min to 5 min"; one time if both read the same."""
    least, most = format_seconds(low), format_seconds(high)
    return least if least == most else f"{least} to {most}"


def format_duration(time: timedelta) -> str:
    """Returns a duration in its largest whole unit, such as "30 minutes"."""
    length = time.total_seconds()
    units = {"hour": 3600, "minute": 60}
    unit = next((name for name, size in units.items() if length % size == 0), "second")
    number = length / units.get(unit, 1)
    return f"{number:g} {unit}{'s' * (number != 1)}"
