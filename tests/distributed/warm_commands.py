"""Real processes of the command line, most of them forked from one that is warm."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import warm_server

import trainer

ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(Path(trainer.__file__).parents[1]),
    "PYTHONWARNINGS": "ignore",
}
COLD = """
import pathlib, runpy, sys
pathlib.Path(sys.argv.pop(1)).touch()
sys.argv[0] = "trainer"
runpy.run_module("trainer", run_name="__main__", alter_sys=True)
"""
LIMIT_SECONDS = 60.0
"""Within which a process has ended; on a machine that does nothing else it is one."""


class Commands:
    """Real processes of the command, forked from a warm one or started anew."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, warm_server.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        self._number = 0

    def close(self) -> None:
        self._server.communicate()

    def run(
        self,
        *arguments: str,
        number: int = 0,
        after: float = 0.0,
        cold: bool = False,
        limits: dict[str, int] | None = None,
        variables: dict[str, str] | None = None,
    ) -> tuple[int | None, str, float, float]:
        """Returns code, output, and seconds of its life and after the signal `number`."""
        self._number += 1
        begun = self.folder / f"begun-{self._number}"
        output = self.folder / f"output-{self._number}"
        child: subprocess.Popen[bytes] | None = None
        if cold:
            with output.open("w") as file:
                command = [sys.executable, "-c", COLD, str(begun), *arguments]
                child = subprocess.Popen(command, stdout=file, stderr=file, env=ENVIRONMENT)
            pid = child.pid
        else:
            asked = {"arguments": arguments, "output": str(output), "begun": str(begun)}
            asked |= {"limits": limits or {}, "variables": variables or {}}
            pid = self._ask({**asked, "directory": str(self.folder)})["pid"]
        while not begun.exists():
            time.sleep(0.001)
        started = sent = time.monotonic()
        if number:
            time.sleep(0.003 + after)  # a moment, for the first line of the command
            sent = time.monotonic()
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                sent = 0.0
        if child is not None:
            try:
                code = child.wait(LIMIT_SECONDS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                code = None
        else:
            code = self._ask({"pid": pid, "seconds": LIMIT_SECONDS})["code"]
        end = time.monotonic()
        return code, output.read_text(errors="replace"), end - started, end - sent

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(question) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())
