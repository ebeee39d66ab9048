"""What an input and a model are, by their content: hashes that tell whether either has changed."""

import hashlib
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import faults_named


def digest_of_file(file: Path) -> str:
    """Returns a hash of the content of a file."""
    import xxhash

    kind: Any = xxhash.xxh3_128
    with faults_named(file), file.open("rb") as stream:
        return hashlib.file_digest(stream, kind).hexdigest()


def digest_of_model(name: str) -> dict[str, str]:
    """Returns a hash of each file in the folder of a model; for a hub name, of its commit."""
    folder = Path(name)
    if folder.is_dir():
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return {path.name: digest_of_file(path) for path in files if path.suffix != ".md"}
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(name, trust_remote_code=False)
    return {name: str(getattr(config, "_commit_hash", None))}
