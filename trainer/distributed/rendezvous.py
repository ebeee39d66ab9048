"""Rendezvous: ranks meet before the first collective, so that absent ones are named in minutes."""

import os
import re
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from datetime import timedelta

from torch.distributed import (
    DistError,
    PrefixStore,  # pyright: ignore[reportPrivateImportUsage]
    TCPStore,  # pyright: ignore[reportPrivateImportUsage]
)

from trainer.distributed.environment_variables import whole_number
from trainer.distributed.timeouts import meeting_time
from trainer.errors import LaunchError
from trainer.wording import excerpt, format_duration

ALL_THERE = "all there"
AGENT_TIME = timedelta(seconds=30)
"""How long to wait for the store of torchrun's agent, which exists before its ranks do."""
LINGER_SECONDS = 5
"""How long rank 0, which may serve the store, waits for the others to read why it ends."""


@contextmanager
def meeting() -> Generator[PrefixStore | None]:
    """Context manager: waits for all ranks, and yields the store through which they met.

    Yields None for a single rank. Create the process group inside: its store uses the same server.
    Raises LaunchError on every rank that is present, naming the absent ranks, or the address at
    which this rank cannot reach the others.
    """
    num_ranks = whole_number("WORLD_SIZE", 1)
    if num_ranks == 1:
        yield None
        return
    rank, host, port = _address()
    wait = meeting_time()
    end = time.monotonic() + wait.total_seconds()
    with_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    store = _join(host, port, rank, with_agent=with_agent, end=end, wait=wait)
    run = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    shared = PrefixStore(f"trainer/{run}/{attempt}", store)
    try:
        _wait_for_all(shared, rank, num_ranks, end, wait)
    except DistError as error:
        raise LaunchError(
            f"rank {rank} lost the main process at {host}:{port} before all ranks had met",
            key="MASTER_ADDR",
            value=host,
            hint="its own message says why",
        ) from error
    yield shared


def _address() -> tuple[int, str, int]:
    """Returns the rank, and the host and port where ranks meet."""
    names = ("RANK", "MASTER_ADDR", "MASTER_PORT")
    rank, host, port = (os.environ.get(name, "") for name in names)
    if not host or not all(re.fullmatch("[0-9]{1,9}", number) for number in (rank, port)):
        raise LaunchError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} and RANK={excerpt(rank)} "
            f"MASTER_ADDR={excerpt(host)} MASTER_PORT={excerpt(port)}",
            key="MASTER_ADDR",
            value=host,
            hint="set them to the number of the process, and to the address and a free port of the "
            "machine of rank 0",
        )
    return int(rank), host, int(port)


def _join(
    host: str, port: int, rank: int, *, with_agent: bool, end: float, wait: timedelta
) -> TCPStore:
    """Returns the store of the launch; rank 0 serves it unless an agent does."""
    hosts = rank == 0 and not with_agent
    if with_agent:  # which serves it before it starts ranks
        wait = min(wait, AGENT_TIME)
        end = min(end, time.monotonic() + wait.total_seconds())
    problem = None if hosts else _wait_for_server(host, port, end)
    if problem is not None:
        raise _unreachable(rank, host, port, wait, problem)
    try:
        return TCPStore(
            host, port, is_master=hosts, timeout=wait, wait_for_workers=False, multi_tenant=True
        )
    except DistError as error:
        if hosts and "EADDRINUSE" in str(error):
            raise LaunchError(
                f"rank 0 cannot listen on port {port}, which is in use",
                key="MASTER_PORT",
                value=port,
                hint="choose another --main_process_port (MASTER_PORT)",
            ) from error
        raise _unreachable(
            rank, host, port, wait, "the process listening there is not a trainer rank"
        ) from error


def _wait_for_server(host: str, port: int, end: float) -> str | None:
    """Returns None as soon as a process listens, or the problem if none does until `end`.

    Torch's own attempts print a traceback each, and Ctrl-C does not interrupt them.
    """
    while True:
        try:
            left = end - time.monotonic()
            socket.create_connection((host, port), timeout=min(max(left, 1), 10)).close()
            return None
        except OSError as error:
            if time.monotonic() > end:
                return error.strerror or str(error)
        time.sleep(0.2)


def _unreachable(rank: int, host: str, port: int, wait: timedelta, problem: object) -> LaunchError:
    return LaunchError(
        f"rank {rank} cannot reach the main process at {host}:{port} within "
        f"{format_duration(wait)} ({problem})",
        key="MASTER_ADDR",
        value=host,
        hint="check --main_process_ip (MASTER_ADDR), the port, the firewall, and that rank 0 was "
        "started",
    )


def _wait_for_all(
    store: PrefixStore, rank: int, num_ranks: int, end: float, wait: timedelta
) -> None:
    """Returns when all ranks have met; raises LaunchError on all that are present if some do not.

    The first rank to decide which of the two it is decides for all.
    """
    store.set(f"rank-{rank}", socket.gethostname())
    keys = [f"rank-{number}" for number in range(num_ranks)]
    while not store.check(["decision"]):
        if rank == 0 and store.check(keys):
            store.compare_set("decision", "", ALL_THERE)
        elif time.monotonic() > end:
            absent = [number for number, key in enumerate(keys) if not store.check([key])]
            decision = _absence(absent, num_ranks, wait) if absent else ALL_THERE
            store.compare_set("decision", "", decision)
        else:
            time.sleep(0.1)
    decision = store.get("decision").decode()
    store.add("read", 1)
    if decision == ALL_THERE:
        return
    if rank == 0:
        last = time.monotonic() + LINGER_SECONDS
        num_present = sum(store.check([key]) for key in keys)
        while store.add("read", 0) < num_present and time.monotonic() < last:
            time.sleep(0.05)
    raise LaunchError(
        decision,
        key="WORLD_SIZE",
        value=num_ranks,
        hint="see what their machines say, and that each was started with its own rank",
    )


def _absence(ranks: list[int], num_ranks: int, wait: timedelta) -> str:
    """Returns the clause that names absent ranks, such as: ranks 1, 3 and 8 to 15 of 16 …"""
    spans: list[list[int]] = []
    for rank in ranks:
        if spans and spans[-1][-1] == rank - 1:
            spans[-1].append(rank)
        else:
            spans.append([rank])
    parts: list[str] = []
    for span in spans:
        parts += [f"{span[0]} to {span[-1]}"] if len(span) > 2 else map(str, span)
    listed = f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
    return (
        f"rank{'s' * (len(ranks) > 1)} {listed} of {num_ranks} did not come within "
        f"{format_duration(wait)}"
    )
