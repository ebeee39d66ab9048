"""A hub on this machine, with the part of the protocol that publishes models.

It creates repositories and branches, and stores files and commits.
"""

import hashlib
import json
import re
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

from support.chunk_store import access
from support.http_server import serving
from support.hub_repositories import LARGE, ConflictError, Repository, git_digest, lines_of
from support.scripted_hub import OWNERS, READS, WRITES, Hub


@contextmanager
def serve() -> Generator[Hub]:
    """Serves an empty hub, and gives it; its `address` is that of the server."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    with serving(handler) as hub.address:
        yield hub


class _RefusedError(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        request = f"{self.command} {path}"
        self.hub.requests.append(request)
        fault = self.hub.fault(request)
        length = int(self.headers.get("Content-Length", "0"))
        if fault is not None and fault.cut_after is not None:
            self.rfile.read(min(length, fault.cut_after))
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        body = self._body(length)
        if fault is not None and fault.hold is not None:
            end = time.monotonic() + 30
            while not fault.hold() and time.monotonic() < end:
                time.sleep(0.001)
        if fault is not None and not fault.status:
            fault = None
        try:
            if fault is not None and not fault.after:
                raise _RefusedError(fault.status, message=fault.message)
            value = self._value(path, body)
            if fault is not None:
                raise _RefusedError(fault.status, message=fault.message)
        except _RefusedError as refused:
            headers = {"X-Error-Code": refused.code} if refused.code else {}
            error = json.dumps({"error": refused.message}).encode()
            self._send(refused.status, error, {**headers, **(fault.headers if fault else {})})
            return
        if isinstance(value, bytes):
            self._send(200, value, {"ETag": f'"{git_digest(value)}"'})
        else:
            self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _body(self, length: int) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(length)
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _value(self, path: str, body: bytes) -> Any:
        if path.startswith("/lfs/"):  # as with signed addresses, without a token
            return self._store(path.split("/")[2:], body)
        if path.startswith(("/v1/", "/v2/")):
            answer = self.hub.chunks.answer(self.command, path, body)
            if answer is None:
                raise _RefusedError(404)
            return answer
        if path == "/api/validate-yaml":
            return {"warnings": [], "errors": []}
        if path == "/api/whoami-v2":
            if self._token() is None:
                raise _RefusedError(401)
            return {"name": "alice", "type": "user"}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, rest = "/".join(parts[2:4]), parts[4:]
        else:
            name, rest = "/".join(parts[:2]).removesuffix(".git"), parts[2:]
        verb, revision = rest[0] if rest else "revision", "/".join(rest[1:]) or "main"
        repository = self._repository(name)
        match self.command, verb:
            case _, "resolve":
                return self._file(repository, rest[1], "/".join(rest[2:]))
            case "GET", "revision":
                self._check_revision(repository, revision)
                return repository.described(name, revision)
            case "GET", "tree":
                files = repository.described(name, revision)["siblings"]
                return [_entry(file) for file in files]
            case "POST", "branch":
                self._check_writing(name)
                if revision in repository.branches:
                    raise _RefusedError(409, message="Reference already exists")
                repository.branches[revision] = repository.branches["main"]
                return {}
            case "POST", "preupload":
                self._check_writing(name)
                self._check_revision(repository, revision)
                asked = json.loads(body)
                ignored = asked.get("gitIgnore", repository.files(revision).get(".gitignore"))
                files = [_how_to_send(repository, revision, file) for file in asked["files"]]
                return {"files": [{**file, "shouldIgnore": bool(ignored)} for file in files]}
            case "POST", "info":
                self._check_writing(name)
                return self._batch(json.loads(body)["objects"])
            case "GET", "xet-write-token":
                self._check_writing(name)
                return access(self.hub.address)
            case "POST", "commit":
                self._check_writing(name)
                self._check_revision(repository, revision)
                return self._commit(name, revision, body)
        raise _RefusedError(404, "EntryNotFound")

    def _token(self) -> str | None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or None
        if token not in (None, WRITES, READS):
            raise _RefusedError(401, message="Invalid credentials in Authorization header")
        return token

    def _check_writing(self, name: str) -> None:
        token, owner = self._token(), name.split("/")[0]
        if token is None:
            raise _RefusedError(401, message="Invalid username or password.")
        if token == READS or owner not in OWNERS:
            raise _RefusedError(403, message=f"You don't have the rights to write to {owner}")

    def _create(self, asked: dict[str, Any]) -> Any:
        name = f"{asked['organization']}/{asked['name']}"
        if asked["organization"] == "nobody":
            raise _RefusedError(404, message="Organization not found")
        self._check_writing(name)
        if name in self.hub.repositories:
            raise _RefusedError(409, message="You already created this model repo")
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.repositories[name] = Repository(private)
        return {"url": f"{self.hub.address}/{name}", "name": name}

    def _repository(self, name: str) -> Repository:
        token, repository = self._token(), self.hub.repositories.get(name)
        if repository is None or (repository.private and token is None):
            raise _RefusedError(404 if token else 401, "RepoNotFound", "Repository not found")
        return repository

    def _check_revision(self, repository: Repository, revision: str) -> None:
        if repository.commit_of(revision) is None:
            raise _RefusedError(404, "RevisionNotFound", "Invalid rev id")

    def _file(self, repository: Repository, revision: str, path: str) -> bytes:
        self._check_revision(repository, revision)
        if path not in repository.files(revision):
            raise _RefusedError(404, "EntryNotFound", "Entry not found")
        return repository.files(revision)[path]

    def _batch(self, objects: list[dict[str, Any]]) -> Any:
        answers: list[dict[str, Any]] = []
        for described in objects:
            oid, size = described["oid"], described["size"]
            place = f"{self.hub.address}/lfs/{oid}"
            upload: dict[str, Any] = {"href": place}
            if self.hub.part_bytes is not None:
                count = -(-size // self.hub.part_bytes)
                parts = {f"{i + 1:05d}": f"{place}/{i + 1}" for i in range(count)}
                upload["header"] = {"chunk_size": str(self.hub.part_bytes), **parts}
            actions = {"upload": upload, "verify": {"href": f"{place}/verify"}}
            kept = oid in self.hub.stored
            answers.append({"oid": oid, "size": size, **({} if kept else {"actions": actions})})
        return {"transfer": "basic", "objects": answers}

    def _store(self, parts: list[str], body: bytes) -> Any:
        oid, *rest = parts
        if self.command == "POST" and rest:  # verify
            return {}
        if rest:
            self.hub.parts.setdefault(oid, {})[int(rest[0])] = body
            return b"part"
        pieces = self.hub.parts.get(oid, {})
        content = b"".join(pieces[i] for i in sorted(pieces)) if self.command == "POST" else body
        assert hashlib.sha256(content).hexdigest() == oid
        self.hub.stored[oid] = content
        self.hub.uploads.append(oid)
        return {}

    def _commit(self, name: str, revision: str, body: bytes) -> Any:
        lines = lines_of(body)
        for file in (line["value"] for line in lines if line["key"] == "lfsFile"):
            content = self.hub.chunks.file(file["oid"], file["size"])
            if content is not None:
                self.hub.stored[file["oid"]] = content
        try:
            made = self.hub.repositories[name].commit(revision, lines, self.hub.stored)
        except ConflictError:
            message = "A commit has happened since. Please refresh and try again."
            raise _RefusedError(412, message=message) from None
        self.hub.commits.append(lines)
        return {"commitUrl": f"{self.hub.address}/{name}/commit/{made}", "commitOid": made}

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        commit = next(
            (part for part in self.path.split("/") if re.fullmatch("[0-9a-f]{40}", part)), "0" * 40
        )
        for name, value in {**headers, "X-Repo-Commit": commit}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(file: dict[str, Any]) -> dict[str, Any]:
    return {"type": "file", "path": file["rfilename"], "size": file["size"], "oid": file["blobId"]}


def _how_to_send(repository: Repository, revision: str, file: dict[str, Any]) -> dict[str, Any]:
    path = file["path"]
    large = path.endswith(LARGE)
    content = repository.files(revision).get(path)
    oid = None
    if content is not None:
        oid = hashlib.sha256(content).hexdigest() if large else git_digest(content)
    mode = "lfs" if large else "regular"
    return {"path": path, "uploadMode": mode, "oid": oid}
