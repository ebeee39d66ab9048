"""A rank that meets the others and fails, so that the launcher starts all ranks again.

In the second round rank 1 comes three seconds late.
"""

import os
import sys
import time

from trainer.distributed.rendezvous import meeting

first, rank = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0", os.environ["RANK"]
if rank == "1" and not first:
    time.sleep(3)
begin = time.monotonic()
with meeting():
    print(f"rank {rank}, first {first}, waited {time.monotonic() - begin:.1f}")
if first:
    time.sleep(1)
    sys.exit(1)
