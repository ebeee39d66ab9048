"""The last check before files are sent: none of them holds the token with which they are sent."""

from collections.abc import Mapping
from pathlib import Path

from trainer.errors import RunDirectoryError
from trainer.publishing.client import Client
from trainer.publishing.plan import WEIGHTS

BLOCK = 2**20


def check_no_token(client: Client, files: Mapping[str, Path | bytes]) -> None:
    """Raises RunDirectoryError if a file, other than one of weights, holds the user's token."""
    if client.token is None:
        return
    for path, content in files.items():
        if not WEIGHTS.fullmatch(path) and _holds(content, client.token.encode()):
            raise RunDirectoryError(
                f"{path} holds the token of the hub, and was not sent",
                key=path,
                hint="remove the token from the run directory, and revoke it in the settings",
            )


def _holds(content: Path | bytes, secret: bytes) -> bool:
    if isinstance(content, bytes):
        return secret in content
    before = b""
    with content.open("rb") as file:
        while block := file.read(BLOCK):
            if secret in before + block:
                return True
            before = block[1 - len(secret) :]
    return False
