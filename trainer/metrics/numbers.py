"""Numbers in records that may hold anything: files of older versions, or typed by hand."""

import math
from typing import Any


def finite(value: Any) -> float | None:
    """Returns a finite number as it is; None for anything else, True and False included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if math.isfinite(value) else None
