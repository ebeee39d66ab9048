"""The peak of resident memory is that of this program alone."""

import subprocess
import sys

import pytest

from trainer.tracking.resident_memory import peak_resident_bytes

MIB = 2**20
PRINT = "from trainer.tracking.resident_memory import peak_resident_bytes as p; print(p())"


def test_peak_grows_with_what_the_process_takes_and_does_not_fall():
    before = peak_resident_bytes()
    held = bytearray(before)
    held[::4096] = b"x" * len(held[::4096])
    with_held = peak_resident_bytes()
    assert with_held > before
    del held
    assert peak_resident_bytes() > 0.95 * with_held  # the kernel counts some pages late


@pytest.mark.skipif(sys.platform != "linux", reason="VmHWM is read on Linux")
def test_what_the_parent_held_is_not_counted():
    held = bytearray(400 * MIB)
    held[::4096] = b"x" * len(held[::4096])
    printed = subprocess.run(
        [sys.executable, "-c", PRINT], capture_output=True, text=True, check=True
    ).stdout
    assert len(held) == 400 * MIB
    assert 5 * MIB < int(printed) < 100 * MIB
