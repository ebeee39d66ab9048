"""What errors of libraries mean to a user: no memory, a full disk, a rank that is gone or hangs."""

import os
import re
from datetime import timedelta
from pathlib import Path

from trainer.distributed.environment_variables import value_error
from trainer.errors import LaunchError, TrainerError
from trainer.files.file_errors import file_error
from trainer.process.out_of_memory import is_out_of_memory, out_of_memory

GONE = (
    *("Connection closed by peer", "Connection reset by peer", "remote process exited"),
    "Connection was likely closed",
)
"""How gloo and NCCL say that another rank is no more."""
HUNG = re.compile(r"Timed out waiting (\d+)ms|timeout caused pair closure")
"""How gloo says that another rank is there and does not answer; NCCL ends the process itself."""


def in_a_sentence(error: BaseException, place: Path | None = None) -> TrainerError | None:
    """Returns what an error of a library means to a user, None where it is our defect.

    `place` is where the command writes.
    """
    if is_out_of_memory(error):
        return out_of_memory(error)
    told = file_error(error, place) or value_error(error)
    if told is not None or os.environ.get("WORLD_SIZE", "1") == "1":
        return told
    text = str(error)
    if found := HUNG.search(text):
        from trainer.wording import format_duration

        time = found[1] and f"for {format_duration(timedelta(milliseconds=int(found[1])))}"
        return LaunchError(
            f"a rank has not answered {time or 'in time'}: it hangs, or its machine or the network "
            f"does; end what is left of it, and the same command goes on from the last checkpoint"
        )
    if any(spelling in text for spelling in GONE):
        return LaunchError(
            "another rank ended or was killed, perhaps for lack of memory; the same command goes "
            "on from the last checkpoint"
        )
    return None
