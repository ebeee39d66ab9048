"""What errors of libraries mean to a user: a full disk, a rank that is gone or that hangs."""

import os
import re
from datetime import timedelta

from trainer.errors import CheckpointError, LaunchError, TrainerError

FULL = ("os error 28", "os error 27", "os error 122", "Errno 28", "Errno 27", "Errno 122")
"""How Python and Rust libraries spell ENOSPC, EFBIG and EDQUOT."""
GONE = (
    *("Connection closed by peer", "Connection reset by peer", "remote process exited"),
    "Connection was likely closed",
)
"""How gloo and NCCL say that another rank is no more."""
HUNG = re.compile(r"Timed out waiting (\d+)ms|timeout caused pair closure")
"""How gloo says that another rank is there and does not answer; NCCL ends the process itself."""


def in_a_sentence(error: str) -> TrainerError | None:
    """Returns what an error of a library means to a user, None where it is our defect."""
    if any(spelling in error for spelling in FULL):
        return CheckpointError(f"the disk is full ({error}); free space and run the same command")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return None
    if found := HUNG.search(error):
        from trainer.timeouts import spoken

        time = found[1] and f"for {spoken(timedelta(milliseconds=int(found[1])))}"
        return LaunchError(
            f"a rank has not answered {time or 'in time'}: it hangs, or its machine or the network "
            f"does; end what is left of it, and the same command goes on from the last checkpoint"
        )
    if any(spelling in error for spelling in GONE):
        return LaunchError(
            "another rank ended or was killed, perhaps for lack of memory; the same command goes "
            "on from the last checkpoint"
        )
    return None
