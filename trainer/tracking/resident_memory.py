"""Resident memory of this process, as the system counts it."""

import sys


def peak_resident_bytes() -> int:
    """Returns the most resident memory since the process began, in bytes; 0 if the system does not
    say, as on Windows."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
