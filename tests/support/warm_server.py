"""Forks programs from a process that has imported the libraries, which is most of a start.

    python warm_server.py DESCRIPTOR      the descriptor of a SOCK_SEQPACKET socket

A message is a JSON object with an `id`, which the answer repeats. A message with `program` starts a
process and is answered with its `pid`; one with `pid` is answered with the exit `code` of that
process, which is null while it runs.

A program is what follows `python` on a command line. `-m accelerate.commands.launch` is the real
launcher: its agent, rendezvous, signals and exit codes are those of torchrun. Only its ranks come
from a second such server, which is forked before the launcher starts a thread.
"""

import atexit
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import TimeoutExpired
from time import monotonic, sleep
from typing import Any, NoReturn

LAUNCHER = ["-m", "accelerate.commands.launch"]
PRELOADED = (
    *("accelerate.commands.launch", "bitsandbytes", "datasets", "deepspeed", "evaluate", "peft"),
    *("deepspeed.runtime.engine", "deepspeed.runtime.zero.stage3", "sklearn.metrics"),
    *("jinja2", "matplotlib.figure", "matplotlib.backends.backend_svg", "scipy.stats"),
    *("torch.distributed.run", "torch.distributed.fsdp", "transformers"),
    *("transformers.models.auto.modeling_auto", "transformers.models.auto.tokenization_auto"),
    *("transformers.models.bert.modeling_bert", "transformers.models.llama.modeling_llama"),
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
DISPOSITIONS = {number: signal.getsignal(number) for number in SIGNALS}
MESSAGE_BYTES = 2**20


def main() -> None:
    from transformers import conversion_mapping

    for name in (*PRELOADED, *_modules_of_trainer()):
        importlib.import_module(name)
    conversion_mapping.get_checkpoint_conversion_mapping("bert")  # compiles a thousand patterns
    gc.collect()
    gc.freeze()  # otherwise a collection in a forked process would copy the shared memory
    serve(socket.socket(fileno=int(sys.argv[1])))
    os._exit(0)


def _modules_of_trainer() -> Iterator[str]:
    import trainer

    for module in pkgutil.walk_packages(trainer.__path__, "trainer."):
        if not module.name.endswith("__main__"):
            yield module.name


def serve(channel: socket.socket, ranks: str | None = None) -> None:
    """Answers until the other end closes, then kills processes that still run.

    With the folder `ranks`, processes are ranks: they are not killed at the end, and each writes
    its process id into a file of that folder named after its RANK.
    """
    codes: dict[int, int | None] = {}
    while message := channel.recv(MESSAGE_BYTES):
        request = json.loads(message)
        if "program" in request:
            answer: dict[str, Any] = {"pid": _fork(channel, request, ranks)}
            codes[answer["pid"]] = None
        else:
            answer = {"code": _code(codes, request["pid"])}
        channel.send(json.dumps({"id": request["id"], **answer}).encode())
    for pid in codes if ranks is None else ():
        if _code(codes, pid) is None:
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


def _code(codes: dict[int, int | None], pid: int) -> int | None:
    if codes[pid] is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        codes[pid] = os.waitstatus_to_exitcode(status) if ended else None
    return codes[pid]


def _fork(channel: socket.socket, request: dict[str, Any], ranks: str | None) -> int:
    if pid := os.fork():
        return pid
    channel.close()
    return _become(request, ranks)


def _become(request: dict[str, Any], ranks: str | None) -> NoReturn:
    os.setsid()
    for number, disposition in DISPOSITIONS.items():
        signal.signal(number, disposition)
    if request["output"] is not None:
        output = os.open(request["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (output, 1), (output, 2)):
            os.dup2(descriptor, target)
    os.chdir(request["directory"])
    for name, most in request["limits"].items():
        if name == "RLIMIT_AS":
            most += _mapped_bytes()
        resource.setrlimit(getattr(resource, name), (most, most))
    os.environ.clear()
    os.environ.update(request["environment"])
    if ranks is not None:
        _write(Path(ranks, os.environ["RANK"]), str(os.getpid()))
    program = request["program"]
    if program[:2] == LAUNCHER:
        _ask_for_ranks(_second_server(request["ranks"]))
    try:
        _run(program)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    # The interpreter ends so, too, but it also runs the destructors of shared libraries.
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _mapped_bytes() -> int:
    """Returns the size of this process's address space."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _write(file: Path, text: str) -> None:
    staging = file.with_name(f".{file.name}")
    staging.write_text(text)
    staging.rename(file)


def _run(program: Sequence[str]) -> None:
    """Runs a program as `python` does."""
    from trainer.process import stop_request

    assert stop_request.PARENT  # set by the import, in another process
    stop_request.PARENT = os.getppid()
    program = list(program)
    if program[0] == "-u":
        del program[0]
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(write_through=True)  # type: ignore[union-attr]
    if program[0] == "-m":
        sys.path[0] = str(Path.cwd())
        sys.argv = program[1:]
        runpy.run_module(program[1], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(program[0]).parent)
        sys.argv = program
        runpy.run_path(program[0], run_name="__main__")


def _second_server(ranks: str) -> socket.socket:
    """Starts a server of ranks, which ends with this process, and returns the channel to it."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        there.close()
        return here
    here.close()
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # torchrun handles SIGHUP, so its ranks do not inherit that nohup ignores it.
    DISPOSITIONS[signal.SIGHUP] = signal.SIG_DFL
    serve(there, ranks)
    os._exit(0)


class Rank:
    """A process of a server, with the part of `subprocess.Popen` that the launcher uses."""

    requests = 0

    def __init__(self, channel: socket.socket, program: Sequence[str], environment: Any) -> None:
        self._channel = channel
        self.args = program
        self.returncode: int | None = None
        self.pid: int = self._ask(
            program=program,
            environment=environment,
            directory=str(Path.cwd()),
            output=None,
            limits={},
        )["pid"]

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._ask(pid=self.pid)["code"]
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        end = None if timeout is None else monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and monotonic() > end:
                raise TimeoutExpired(self.args, timeout or 0)
            sleep(0.01)
        return code

    def _ask(self, **request: Any) -> dict[str, Any]:
        Rank.requests += 1
        number = Rank.requests
        self._channel.send(json.dumps({"id": number, **request}).encode())
        while True:  # a signal may have interrupted an earlier request before its answer came
            answer = json.loads(self._channel.recv(MESSAGE_BYTES))
            if answer["id"] == number:
                return answer


def _ask_for_ranks(channel: socket.socket) -> None:
    """Makes the launcher of this process start its ranks from a server."""
    from torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler import (
        SubprocessHandler,
    )

    def start(_: SubprocessHandler, command: Sequence[str], environment: dict[str, str]) -> Rank:
        assert command[0] == sys.executable
        return Rank(channel, command[1:], environment)

    SubprocessHandler._popen = start  # type: ignore[assignment,method-assign]


if __name__ == "__main__":
    main()
