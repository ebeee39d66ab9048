"""The service to which the hub's client takes large files by default: Xet, in its first version.

Files arrive as chunks in containers ("xorbs"), and a list of files ("shard") that is not read here:
a file is found again by its SHA-256, among the chunks that follow each other.
"""

import hashlib
import time
from dataclasses import dataclass, field
from typing import Any

HEADER_BYTES = 8
UNCOMPRESSED = 0


@dataclass
class ChunkStore:
    """The chunks that arrived, container by container."""

    containers: dict[str, list[bytes]] = field(default_factory=dict[str, list[bytes]])
    num_lists: int = 0
    """Lists of files that arrived."""

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """Returns the answer to a request, or None for what this version does not have."""
        match method, path.strip("/").split("/"):
            case "POST", ["v1", "xorbs", _, name]:
                inserted = name not in self.containers
                self.containers[name] = _chunks(body)
                return {"was_inserted": inserted}
            case "POST", ["v1", "shards"]:
                self.num_lists += 1
                return {"result": 1}
            case "POST", ["v1", "telemetry"]:
                return {}
        return None

    def file(self, sha256: str, size: int) -> bytes | None:
        """Returns the content of a file, or None if its chunks did not arrive."""
        for chunks in self.containers.values():
            for first in range(len(chunks)):
                content = b"".join(chunks[first:])[:size]
                if hashlib.sha256(content).hexdigest() == sha256:
                    return content
        return None


def access(address: str) -> dict[str, Any]:
    """Returns what a hub answers to send its client to the service."""
    return {"casUrl": address, "accessToken": "short-lived", "exp": int(time.time()) + 3600}


def _chunks(container: bytes) -> list[bytes]:
    """Returns the chunks of a container; those of random content are not compressed."""
    chunks: list[bytes] = []
    at = 0
    while at < len(container):
        header = container[at : at + HEADER_BYTES]
        assert header[4] == UNCOMPRESSED, "chunks of a test must be random"
        size = int.from_bytes(header[1:4], "little")
        chunks.append(container[at + HEADER_BYTES : at + HEADER_BYTES + size])
        at += HEADER_BYTES + size
    return chunks
