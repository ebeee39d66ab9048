"""Errors of libraries in a user's terms: no memory, a full disk, a rank that died or hangs."""

import re
from datetime import timedelta
from pathlib import Path

from trainer.distributed.environment_variables import num_ranks, value_error
from trainer.errors import LaunchError, TrainerError
from trainer.files.file_errors import file_error
from trainer.process.out_of_memory import is_out_of_memory, out_of_memory

GONE = (
    *("Connection closed by peer", "Connection reset by peer", "remote process exited"),
    "Connection was likely closed",
)
"""How gloo and NCCL report that a peer died."""
HUNG = re.compile(r"Timed out waiting (\d+)ms|timeout caused pair closure")
"""How gloo reports that a peer does not answer; NCCL ends the process itself."""


def as_user_error(error: BaseException, place: Path | None = None) -> TrainerError | None:
    """Returns a library's error in a user's terms, or None if it is a defect of this project.

    `place` is the folder that the command writes to.
    """
    if is_out_of_memory(error):
        return out_of_memory(error)
    known = file_error(error, place) or value_error(error)
    if known is not None or num_ranks() == 1:
        return known
    text = str(error)
    if found := HUNG.search(text):
        from trainer.wording import format_duration

        time = found[1] and f"for {format_duration(timedelta(milliseconds=int(found[1])))}"
        return LaunchError(
            f"a rank has not answered {time or 'in time'}: it hangs, or its machine or the network "
            f"does",
            hint="end its remaining processes; the same command resumes from the last checkpoint",
        )
    if any(spelling in text for spelling in GONE):
        return LaunchError(
            "another rank ended or was killed, perhaps for lack of memory",
            hint="the same command resumes from the last checkpoint",
        )
    return None
