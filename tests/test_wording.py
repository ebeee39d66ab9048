"""Values in messages: units, numbers without exponents, and what errors of libraries say."""

import pytest

from trainer.wording import (
    format_bytes,
    format_seconds,
    format_span,
    kind_and_reason,
    reason_of,
)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (999.7, "1 kB"),
        (1234, "1.23 kB"),
        (999_600_000, "1 GB"),
        (999_400_000, "999 MB"),
        (1.5e12, "1.5 TB"),
        (1e18, "1,000,000 TB"),
    ],
)
def test_bytes(num_bytes, text):
    assert format_bytes(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0123, "0.012 s"),
        (99.4, "99 s"),
        (99.6, "1.7 min"),
        (99.6 * 60, "1.7 h"),
        (99.4 * 3600, "99 h"),
        (99.6 * 3600, "4 days"),
        (86400 * 12_345, "12,345 days"),
    ],
)
def test_seconds(seconds, text):
    assert format_seconds(seconds) == text


def test_a_span_is_one_time_if_both_ends_read_the_same():
    assert format_span(120, 300) == "2 min to 5 min"
    assert format_span(120, 120.4) == "2 min"


@pytest.mark.parametrize(
    ("error", "reason", "with_kind"),
    [
        (OSError("no\n  space"), "no space", "OSError: no space"),
        (ValueError("\x1b[31mred"), r"\x1b[31mred", r"ValueError: \x1b[31mred"),
        (KeyError(), "KeyError", "KeyError"),
    ],
)
def test_what_an_error_says_is_one_line_without_control_characters(error, reason, with_kind):
    assert reason_of(error) == reason
    assert kind_and_reason(error) == with_kind
    assert len(reason_of(ValueError("x" * 500), 160)) == 160
