"""What a hub on this machine holds, what it was asked, and how it fails when it is told to."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from support.chunk_store import ChunkStore
from support.hub_repositories import Files, Repository

WRITES, READS = "hf_AliceWritesWithThisOne", "hf_AliceOnlyReadsWithThis"
"""Tokens of the account alice, who may create repositories below `alice` and `lab`."""
OWNERS = ("alice", "lab")


@dataclass
class Fault:
    """What the hub does to requests, `METHOD path`, that match a pattern, a number of times."""

    pattern: str
    status: int = 500
    """0 carries the request out."""
    message: str = ""
    headers: dict[str, str] = field(default_factory=dict[str, str])
    times: int = 1
    after: bool = False
    """Whether the request is carried out first, so that only its answer is lost."""
    cut_after: int | None = None
    """Number of bytes of the body after which the connection is cut instead."""
    hold: Callable[[], bool] | None = None
    """What has to become true before the request is looked at, for 30 seconds at most."""


@dataclass
class Hub:
    """What a hub holds, what it was asked, and how it fails."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict[str, Repository])
    stored: Files = field(default_factory=Files)
    """Large files by their SHA-256."""
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict[str, dict[int, bytes]])
    requests: list[str] = field(default_factory=list[str])
    """`METHOD path` of every request, in order."""
    uploads: list[str] = field(default_factory=list[str])
    """SHA-256 of every large file that was received whole."""
    commits: list[list[dict[str, Any]]] = field(default_factory=list[list[dict[str, Any]]])
    """The lines of every commit that was made."""
    faults: list[Fault] = field(default_factory=list[Fault])
    chunks: ChunkStore = field(default_factory=ChunkStore)
    part_bytes: int | None = None
    """Size of the parts in which large files are sent; None takes them whole."""
    lock: Any = field(default_factory=Lock)

    def fail(self, pattern: str, status: int = 500, **how: Any) -> None:
        self.faults.append(Fault(pattern, status, **how))

    def fault(self, request: str) -> Fault | None:
        """Returns the fault of a request, and counts it."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.pattern, request):
                    fault.times -= 1
                    return fault
        return None

    def variables(self) -> dict[str, str]:
        """Returns environment variables with which another process pushes to this hub."""
        return {
            "HF_ENDPOINT": self.address,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def writes(self) -> list[str]:
        """Returns the requests that change something."""
        reads = ("GET ", "HEAD ", "POST /api/validate-yaml")
        return [request for request in self.requests if not request.startswith(reads)]

    def received(self) -> set[str]:
        """Returns the paths of all files in the commits so far."""
        lines = [line for commit in self.commits for line in commit]
        return {line["value"]["path"] for line in lines if line["key"] in ("file", "lfsFile")}
