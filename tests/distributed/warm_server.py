"""Forks the real command from a process that has imported the libraries, which takes most of its
time: lines of JSON in, `{"arguments": …, "output": …, …}`, and pids and codes out.

A forked command runs `trainer/__main__.py` from its first line on, with signal handlers as a new
process has them.
"""

import contextlib
import json
import os
import resource
import runpy
import signal
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    import trainer.assembly.resume
    import trainer.cli.train
    import trainer.engines.accelerator
    import trainer.loop
    import trainer.report.results
    import trainer.run  # noqa: F401

    children: dict[int, float] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        if "arguments" in asked:
            answer: dict[str, Any] = {"pid": _fork(asked)}
            children[answer["pid"]] = time.monotonic()
        else:
            answer = _wait(asked["pid"], asked["seconds"])
        print(json.dumps(answer), flush=True)


def _fork(asked: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        nothing = os.open(os.devnull, os.O_RDONLY)
        output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor, target in ((nothing, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, target)
        os.chdir(asked["directory"])
        for name, most in asked.get("limits", {}).items():
            resource.setrlimit(getattr(resource, name), (most, most))
        os.environ.update(asked.get("variables", {}))
        sys.argv = ["trainer", *asked["arguments"]]
        Path(asked["begun"]).touch()
        runpy.run_module("trainer", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def _wait(pid: int, seconds: float) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return {"code": os.waitstatus_to_exitcode(status)}
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return {"code": None}
        time.sleep(0.01)


if __name__ == "__main__":
    main()
