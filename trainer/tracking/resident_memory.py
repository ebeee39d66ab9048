"""Resident memory of this process, as the system counts it."""

import sys
from pathlib import Path


def peak_resident_bytes() -> int:
    """Returns the most resident memory since this program began, in bytes; 0 if the system does not
    say, as on Windows.

    Linux keeps it as `VmHWM` (proc_pid_status(5)). `ru_maxrss` would also count what the process
    held before it executed this program: its parent's memory, such as a notebook's with a model.
    """
    try:
        with Path("/proc/self/status").open(encoding="utf-8") as status:
            for line in status:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
