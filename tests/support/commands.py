"""Real processes of the command line, most of them forked from the warm server."""

import os
import subprocess
import sys
import time
from pathlib import Path

from support.paths import PROGRAMS, ROOT
from support.warm import WarmServer

BEGIN = PROGRAMS / "begin.py"
LIMIT_SECONDS = 60.0
"""How long a process may take to end; on an idle machine it takes one second."""


class Commands:
    """Runs commands to their end, and may send them a signal while they run."""

    def __init__(self, warm: WarmServer, folder: Path) -> None:
        self.folder = folder
        self._warm = warm
        self._number = 0

    def run(
        self,
        *arguments: str,
        number: int = 0,
        after: float = 0.0,
        cold: bool = False,
        limits: dict[str, int] | None = None,
        variables: dict[str, str] | None = None,
    ) -> tuple[int | None, str, float, float]:
        """Returns exit code, output, seconds in total, and seconds after the signal `number`.

        The code is None if the process had to be killed. `cold` starts Python instead of forking.
        """
        self._number += 1
        begun = self.folder / f"begun-{self._number}"
        program = (str(BEGIN), str(begun), *arguments)
        if cold:
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore"}
            output = self.folder / f"output-{self._number}"
            with output.open("w") as file:
                process = subprocess.Popen(
                    [sys.executable, *program],
                    cwd=self.folder,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                )
        else:
            process = self._warm.start(
                *program, cwd=self.folder, variables=variables, limits=limits
            )
            output = process.output
        while not begun.exists():
            time.sleep(0.001)
        started = sent = time.monotonic()
        if number:
            time.sleep(0.003 + after)  # until the first line of the command
            sent = time.monotonic()
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                sent = 0.0
        try:
            code = process.wait(LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(LIMIT_SECONDS)
            code = None
        end = time.monotonic()
        return code, output.read_text("utf-8", errors="replace"), end - started, end - sent
