"""The cache of prepared data: its folder and its keys."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

FORMAT = 2
"""Incremented when the meaning of cached files changes."""


def cache_folder() -> Path:
    """Returns the cache folder: $TRAINER_CACHE, by default ~/.cache/trainer."""
    return Path(os.environ.get("TRAINER_CACHE", "~/.cache/trainer")).expanduser()


def content_key(**parts: Any) -> str:
    """Returns a hash of settings and digests, 32 hexadecimal digits."""
    text = json.dumps({"format": FORMAT, **parts}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
