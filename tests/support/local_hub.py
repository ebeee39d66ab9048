"""A hub on this machine, with the part of the protocol that fetches models and data sets."""

import hashlib
import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from support.http_server import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""The one commit of every repository; `main` is its branch."""


@contextmanager
def serve(root: Path) -> Generator[tuple[str, list[str]]]:
    """Serves root/models/OWNER/NAME and root/datasets/OWNER/NAME.

    Gives the address and the files that were sent so far, which have a `datasets/` before them or
    nothing.
    """
    sent: list[str] = []
    handler = type("Handler", (_Handler,), {"root": root, "sent": sent})
    with serving(handler) as address:
        yield address, sent


class _Handler(BaseHTTPRequestHandler):
    root: Path
    sent: list[str]
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        parts = parts[parts[0] == "api" :]
        kind = "datasets" if parts[0] == "datasets" else "models"
        parts = parts[parts[0] == kind :]
        folder = self.root / kind / "/".join(parts[:2])
        verb, revision, *rest = [*parts[2:], *("revision", "main")[len(parts[2:]) :]]
        path = "/".join(rest)
        if len(parts) < 2 or not folder.is_dir():
            return self._refuse(404, "RepoNotFound")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound")
        match verb:
            case "resolve":
                return self._file(folder, path)
            case "revision":
                return self._json(self._repository(folder))
            case "tree" if not path or (folder / path).is_dir():
                return self._json(_entries(folder, folder / path))
            case "paths-info":
                asked = parse_qs(body.decode())["paths"]
                return self._json([one for one in _entries(folder, folder) if one["path"] in asked])
        return self._refuse(404, "EntryNotFound")

    def _repository(self, folder: Path) -> dict[str, Any]:
        name = "/".join(folder.parts[-2:])
        files = [{"rfilename": entry["path"]} for entry in _entries(folder, folder)]
        return {"id": name, "sha": COMMIT, "private": False, "tags": [], "siblings": files}

    def _file(self, folder: Path, path: str) -> None:
        file = folder / path
        if not file.is_file():
            return self._refuse(404, "EntryNotFound")
        content = file.read_bytes()
        if self.command == "GET":
            kind = "datasets/" * (folder.parts[-3] == "datasets")
            self.sent.append(f"{kind}{'/'.join(folder.parts[-2:])}/{path}")
        return self._send(200, content, {"ETag": f'"{_digest(content)}"'})

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": COMMIT}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entries(folder: Path, under: Path) -> list[dict[str, Any]]:
    return [
        {
            "type": "file",
            "path": str(file.relative_to(folder)),
            "size": file.stat().st_size,
            "oid": _digest(file.read_bytes()),
        }
        for file in sorted(under.rglob("*"))
        if file.is_file()
    ]


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
