"""The table of GPUs, and how one is named."""

import pytest

from trainer.errors import ConfigError
from trainer.planning.gpus import GIB, GPUS, MIB, gpu_named

NOMINAL = {
    "t4": 16,
    "v100-16": 16,
    "v100-32": 32,
    "rtx-3090": 24,
    "rtx-4090": 24,
    "rtx-5090": 32,
    "a10": 24,
    "l4": 24,
    "l40s": 48,
    "a40": 48,
    "a100-40": 40,
    "a100-80": 80,
    "h100": 80,
    "h200": 141,
    "b200": 192,
}
"""GB of the data sheets."""


def test_memory_is_a_little_less_than_the_data_sheet_says():
    assert NOMINAL.keys() == GPUS.keys()
    for name, gpu in GPUS.items():
        assert 0.9 * NOMINAL[name] < gpu.memory / GIB < NOMINAL[name], name
    assert GPUS["t4"].memory == 14_912 * MIB


@pytest.mark.parametrize("name", GPUS)
def test_figures_are_of_one_order(name):
    """A wrong unit or a figure with sparsity would be far off."""
    gpu = GPUS[name]
    assert 100 * MIB < gpu.context < 1000 * MIB
    assert ("bf16" in gpu.peaks) == (gpu.capability >= (8, 0))
    assert 1.9 < gpu.peaks["fp16"] / gpu.peaks["fp32"] < 31
    assert 25 < gpu.peaks["fp16"] / gpu.memory_bandwidth < 450  # operations for a byte
    assert gpu.links.inside_bandwidth > 2 * gpu.links.between_bandwidth


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("t4", "t4"),
        ("Tesla T4", "t4"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("A100_80", "a100-80"),
        (" h100 ", "h100"),
    ],
)
def test_a_gpu_is_found_however_it_is_written(written, name):
    assert gpu_named(written) is GPUS[name]


@pytest.mark.parametrize(
    ("written", "hint"),
    [
        ("a100", "use a100-40 or a100-80, or"),
        ("rtx-409", "use rtx-4090"),
        ("h1000", "h100"),
        ("", "use t4 or v100-16 or"),
        ("x" * 5000, "use t4 or"),
    ],
)
def test_an_unknown_gpu_is_an_error_with_the_nearest_names(written, hint):
    with pytest.raises(ConfigError) as raised:
        gpu_named(written)
    assert raised.value.key == "--gpu"
    assert raised.value.value == written
    assert hint in str(raised.value)
    assert len(str(raised.value)) < 400
