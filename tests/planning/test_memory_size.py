"""The memory of a GPU as it is written."""

import pytest

from trainer.errors import ConfigError
from trainer.planning.memory_size import in_bytes


@pytest.mark.parametrize(
    ("size", "number"),
    [
        ("16GiB", 2**34),
        ("24 gb", 24 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("512MB", 512 * 10**6),
        (2**34, 2**34),
        (1, 1),
    ],
)
def test_sizes_are_read(size, number):
    assert in_bytes(size) == number


@pytest.mark.parametrize(
    "size", ["16", "GiB", "-1GiB", "0GB", "16TiB", "\x1b[31m" * 900, "1e3GB", 0, -5, True, 2**70]
)
def test_what_is_no_size_is_refused(size):
    with pytest.raises(ConfigError) as caught:
        in_bytes(size)
    assert caught.value.key == "--memory"
    assert len(str(caught.value)) < 400
