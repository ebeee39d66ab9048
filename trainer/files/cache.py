"""Where prepared data is kept, and under which key."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

FORMAT = 2
"""Raised when the meaning of what is written here changes."""


def cache_folder() -> Path:
    """Returns where prepared data is kept: $TRAINER_CACHE, by default ~/.cache/trainer."""
    return Path(os.environ.get("TRAINER_CACHE", "~/.cache/trainer")).expanduser()


def content_key(**parts: Any) -> str:
    """Returns a hash of settings and digests."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
