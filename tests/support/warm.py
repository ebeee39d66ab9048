"""Processes that are forked from the warm server as if the system had started them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from support import warm_server
from support.paths import ROOT


class WarmServer:
    """Starts Python programs in processes that have imported the libraries already."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._channel, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with (folder / "server.log").open("w") as log:
            self._server = subprocess.Popen(
                [sys.executable, warm_server.__file__, str(there.fileno())],
                pass_fds=[there.fileno()],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        there.close()
        self._number = 0

    def close(self) -> None:
        """Ends the server and its processes that still run."""
        self._channel.close()
        self._server.wait(60)

    def start(
        self,
        *program: str,
        cwd: Path = ROOT,
        variables: Mapping[str, str] | None = None,
        limits: Mapping[str, int] | None = None,
    ) -> "WarmProcess":
        """Starts what follows `python` on a command line.

        `variables` are added to the environment of this process. `limits` maps names such as
        `RLIMIT_FSIZE` to what the process may use at most. `RLIMIT_AS` limits the address space
        beyond the imported libraries, which with CUDA take gigabytes more than without.
        """
        self._number += 1
        output, ranks = (
            self.folder / f"output-{self._number}",
            self.folder / f"ranks-{self._number}",
        )
        output.touch()
        ranks.mkdir()
        answer = self.ask(
            program=program,
            environment={**os.environ, "PYTHONPATH": str(ROOT), **(variables or {})},
            directory=str(cwd),
            output=str(output),
            limits=limits or {},
            ranks=str(ranks),
        )
        return WarmProcess(self, answer["pid"], output, ranks, [sys.executable, *program])

    def ask(self, **request: Any) -> dict[str, Any]:
        self._channel.send(json.dumps({"id": 0, **request}).encode())
        answer = self._channel.recv(warm_server.MESSAGE_BYTES)
        assert answer, (self.folder / "server.log").read_text()
        return json.loads(answer)


class WarmProcess:
    """A process of a warm server, with the methods of `subprocess.Popen` that tests use.

    Standard output and error are one file, `output`.
    """

    def __init__(
        self, server: WarmServer, pid: int, output: Path, ranks: Path, args: Sequence[str]
    ) -> None:
        self.pid, self.output, self.args = pid, output, args
        self.returncode: int | None = None
        self._server, self._ranks = server, ranks

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.ask(pid=self.pid)["code"]
        return self.returncode

    def wait(self, timeout: float) -> int:
        end = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired(list(self.args), timeout, self.text().encode())
            time.sleep(0.01)
        return code

    def communicate(self, timeout: float) -> tuple[str, None]:
        """Waits for the end and returns what was written; kills the process past the timeout."""
        try:
            self.wait(timeout)
        except BaseException:
            self.kill_all()
            raise
        return self.text(), None

    def text(self) -> str:
        return self.output.read_text("utf-8", errors="replace")

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def kill_all(self) -> None:
        """Kills the process, its group and its ranks, as the failure of a machine would."""
        for pid in (self.pid, *self.rank_pids()):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self.wait(60)

    def rank_pids(self) -> list[int]:
        """Returns the process ids of the ranks that have started, in order of rank."""
        files = [file for file in self._ranks.iterdir() if file.name.isdigit()]
        return [int(file.read_text()) for file in sorted(files, key=lambda file: int(file.name))]
