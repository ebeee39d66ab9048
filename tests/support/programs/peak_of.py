"""Runs a command, and prints the most resident memory that it had, in bytes.

Linux counts for a child also what its parent held when it started the child. Started by pytest, a
child would have the peak of pytest; this parent is small.
"""

import resource
import subprocess
import sys

subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
