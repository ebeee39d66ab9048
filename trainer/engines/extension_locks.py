"""Stale locks of torch's compiled extensions, for which every later start would wait forever.

Before torch 2.14 a lock is a file that exists, and a process that compiles an extension keeps it
open (torch.utils.file_baton). A lock that no process has open was left by a killed one, but only if
all processes are visible. Extensions are therefore kept in a folder for each machine and PID
namespace; a container has its own. Newer locks end with their process, and their file stays.
"""

import os
import platform
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

SPACE = Path("/proc/self/ns/pid")
PAUSE_SECONDS = 0.2
"""Longer than the time from closing a lock to removing it."""


def use_own_folder() -> Path | None:
    """Makes torch compile into a folder for this machine and PID namespace, and returns it.

    Returns None if the environment names a folder, or if the system has no PID namespaces.
    """
    folder = own_folder()
    if folder is not None:
        os.environ["TORCH_EXTENSIONS_DIR"] = str(folder)
    return folder


def own_folder() -> Path | None:
    """Returns the folder of `use_own_folder`, and changes nothing."""
    if "TORCH_EXTENSIONS_DIR" in os.environ or not SPACE.exists():
        return None
    import torch
    from torch.utils.cpp_extension import get_default_build_root

    space = "".join(filter(str.isdigit, str(SPACE.readlink())))
    versions = f"py{platform.python_version()}-torch{torch.__version__}"
    return Path(get_default_build_root()) / f"{platform.node()}-{space}-{versions}"


def remove_stale_locks(folder: Path) -> list[Path]:
    """Removes and returns the locks of `stale_locks`."""
    stale = stale_locks(folder)
    for lock in stale:
        lock.unlink(missing_ok=True)
    return stale


def stale_locks(folder: Path) -> list[Path]:
    """Returns the locks in a folder that no process holds; none with torch 2.14."""
    from torch.utils import cpp_extension

    if not hasattr(cpp_extension, "FileBaton"):
        return []
    stale = _not_held(folder.glob("**/lock"))
    if stale:
        time.sleep(PAUSE_SECONDS)
        stale = _not_held(lock for lock in stale if lock.exists())
    return stale


def _not_held(locks: Iterable[Path]) -> list[Path]:
    locks = list(locks)
    held = set(_open_files()) if locks else set[str]()
    return [lock for lock in locks if str(lock.resolve()) not in held]


def _open_files() -> Iterator[str]:
    """Yields the paths of files that processes of this user hold open."""
    for process in Path("/proc").glob("[0-9]*"):
        links: list[Path] = []
        with suppress(OSError):  # another user's, or gone
            links = list((process / "fd").iterdir())
        for link in links:
            with suppress(OSError):
                yield str(link.readlink())
