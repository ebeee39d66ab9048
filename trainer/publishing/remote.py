"""What a repository on the hub holds before something is sent to it."""

import hashlib
import tempfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from trainer.publishing.client import Client, repeated
from trainer.publishing.record import MOST_BYTES, RECORD, read_record
from trainer.recipe.push import MAIN


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A file in a repository: its size, and the digest by which the hub knows it."""

    num_bytes: int
    sha256: str | None
    """None for a small file, which the hub knows by `blob`."""
    blob: str | None
    """SHA-1 of the content as git takes it."""

    def holds(self, content: Path | bytes) -> bool:
        """Returns whether the file has this content, which is read only if the sizes are equal."""
        size = num_bytes(content)
        if size != self.num_bytes:
            return False
        if self.sha256 is not None:
            return _digest(content, hashlib.sha256()) == self.sha256
        start = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        return self.blob is not None and _digest(content, start) == self.blob


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A branch of a repository, or what stands in for one that does not exist yet."""

    exists: bool
    private: bool | None
    """None if the repository does not exist."""
    has_branch: bool
    head: str | None
    """The commit that a push adds to: that of main for a new branch."""
    files: dict[str, RemoteFile]
    record: dict[str, Any] | None
    """trainer.json; None if there is none that can be read."""


NEW = Remote(exists=False, private=None, has_branch=False, head=None, files={}, record=None)


def read_remote(client: Client, branch: str) -> Remote:
    """Returns what a branch of the client's repository holds; NEW if there is no repository.

    Without a token, a private repository looks as if it did not exist. Raises what the hub's client
    raises.
    """
    from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

    def info(revision: str) -> Any:
        return repeated(
            lambda: client.api.model_info(client.repo_id, revision=revision, files_metadata=True)
        )

    try:
        try:
            found, has_branch = info(branch), True
        except RevisionNotFoundError:
            if branch == MAIN:
                raise
            found, has_branch = info(MAIN), False
    except RepositoryNotFoundError as error:
        absent = (404,) if client.token is not None else (401, 404)
        if error.response.status_code in absent:
            return NEW
        raise
    files = {
        sibling.rfilename: RemoteFile(
            num_bytes=sibling.size or 0,
            sha256=sibling.lfs.sha256 if sibling.lfs is not None else None,
            blob=sibling.blob_id,
        )
        for sibling in found.siblings or []
    }
    return Remote(
        exists=True,
        private=bool(found.private),
        has_branch=has_branch,
        head=found.sha,
        files=files,
        record=_record(client, found.sha, files.get(RECORD)),
    )


def _record(client: Client, commit: str, file: RemoteFile | None) -> dict[str, Any] | None:
    if file is None or file.num_bytes > MOST_BYTES:
        return None
    with tempfile.TemporaryDirectory() as folder:
        place = client.api.hf_hub_download(  # which repeats its requests itself
            client.repo_id, RECORD, revision=commit, cache_dir=folder
        )
        return read_record(Path(place).read_bytes())


def num_bytes(content: Path | bytes) -> int:
    """Returns the size of a file or of its content."""
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _digest(content: Path | bytes, start: Any) -> str:
    with BytesIO(content) if isinstance(content, bytes) else content.open("rb") as file:
        return hashlib.file_digest(file, lambda: start).hexdigest()
