"""The repositories of a hub in memory: commits, branches, and large files by their content."""

import base64
import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

Files = dict[str, bytes]
"""Path in the repository to content."""
LARGE = (".safetensors", ".bin", ".gguf")
"""Files that are stored by their content, as the hub's own .gitattributes says."""


class ConflictError(Exception):
    """A branch is at another commit than the one that a change is based on."""


@dataclass
class Repository:
    """One repository, whose branches point to commits; a commit is its files."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict[str, Files])
    branches: dict[str, str] = field(default_factory=dict[str, str])
    large: set[str] = field(default_factory=set[str])
    """Paths that were committed as large files."""

    def __post_init__(self) -> None:
        self.put("main", {".gitattributes": b"*.safetensors filter=lfs\n"})

    def put(self, branch: str, files: Files) -> str:
        """Makes a commit of these files, and returns its name."""
        text = repr((sorted(files.items()), len(self.commits)))
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name], self.branches[branch] = files, name
        return name

    def commit_of(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)

    def files(self, revision: str = "main") -> Files:
        """Returns the files at a branch or a commit."""
        name = self.commit_of(revision)
        assert name is not None, revision
        return self.commits[name]

    def commit(self, branch: str, lines: list[dict[str, Any]], stored: Files) -> str:
        """Applies the lines of a commit request, and returns the name of the commit.

        `stored` holds large files by their SHA-256. Raises ConflictError, or KeyError for a large
        file that was not uploaded.
        """
        files = dict(self.files(branch))
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    parent = value.get("parentCommit")
                    if parent is not None and parent != self.branches[branch]:
                        raise ConflictError
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = stored[value["oid"]]
                    self.large.add(value["path"])
                case "deletedFile":
                    del files[value["path"]]
                case key:
                    raise AssertionError(key)
        return self.put(branch, files)

    def described(self, name: str, revision: str) -> dict[str, Any]:
        """Returns a repository as the hub describes it, with the metadata of its files."""
        files = self.files(revision)
        return {
            "id": name,
            "sha": self.commit_of(revision),
            "private": self.private,
            "tags": [],
            "siblings": [self._described_file(path, files[path]) for path in sorted(files)],
        }

    def _described_file(self, path: str, content: bytes) -> dict[str, Any]:
        described: dict[str, Any] = {"rfilename": path, "size": len(content)}
        described["blobId"] = git_digest(content)
        if path in self.large:
            digest = hashlib.sha256(content).hexdigest()
            described["lfs"] = {"sha256": digest, "size": len(content), "pointerSize": 134}
        return described


def git_digest(content: bytes) -> str:
    """Returns the name that git gives to a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def lines_of(body: bytes) -> list[dict[str, Any]]:
    """Returns the lines of a commit request."""
    return [json.loads(line) for line in body.splitlines()]
