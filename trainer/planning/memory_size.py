"""The memory of a GPU as it is written on a command line or in Python."""

import re

from trainer.errors import ConfigError
from trainer.wording import excerpt

UNITS = {"mib": 2**20, "gib": 2**30, "mb": 10**6, "gb": 10**9}


def in_bytes(size: str | int) -> int:
    """Returns a size such as "16GiB", or a number of bytes, in bytes; raises ConfigError for any
    other."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)\s*([mg]i?b)", str(size).strip().lower())
    number = float(match[1]) * UNITS[match[2]] if match else size
    if isinstance(number, bool | str) or not 1 <= number < 2**63:
        raise ConfigError(
            f"--memory: {excerpt(size)} is not the memory of a GPU",
            key="--memory",
            value=size,
            hint="give a size such as 16GiB or 24GB",
        )
    return int(number)
