"""The GPU of this machine in the table, by what the driver calls it."""

import pytest

from trainer.errors import ConfigError
from trainer.planning.gpus import GIB, GPUS
from trainer.planning.target import of_device, of_memory, precision_on, target_gpus


@pytest.mark.parametrize(
    ("name", "gibibytes", "capability", "known"),
    [
        ("Tesla T4", 14.6, (7, 5), "t4"),
        ("NVIDIA A100-SXM4-40GB", 39.4, (8, 0), "a100-40"),
        ("NVIDIA A100 80GB PCIe", 79.2, (8, 0), "a100-80"),
        ("NVIDIA GeForce RTX 4090", 23.5, (8, 9), "rtx-4090"),
        ("NVIDIA H100 80GB HBM3", 79.1, (9, 0), "h100"),
    ],
)
def test_a_device_has_the_speed_of_its_model_and_its_own_memory(name, gibibytes, capability, known):
    memory = round(gibibytes * GIB)
    gpu = of_device(name, memory, capability)
    assert (gpu.name, gpu.memory, gpu.peaks) == (known, memory, GPUS[known].peaks)


@pytest.mark.parametrize(
    ("name", "capability"),
    [("NVIDIA GeForce RTX 4070", (8, 9)), ("NVIDIA A10G", (8, 6)), ("NVIDIA T400", (7, 5))],
)
def test_a_device_of_another_model_has_no_known_speed(name, capability):
    gpu = of_device(name, 12 * GIB, capability)
    assert (gpu.name, gpu.memory, gpu.capability, gpu.peaks) == (name, 12 * GIB, capability, {})


def test_gpus_are_those_of_a_name_or_a_memory():
    assert target_gpus("h100", None) == [GPUS["h100"]]
    (smaller,) = target_gpus("h100", 5 * GIB)
    assert (smaller.memory, smaller.peaks) == (5 * GIB, GPUS["h100"].peaks)
    assert target_gpus(None, 24 * GIB) == [of_memory(24 * GIB)]
    assert of_memory(24 * GIB).name == "GPU of 24 GiB"


def test_precision_is_that_of_a_run_on_the_gpu():
    assert precision_on(GPUS["t4"], "auto") == "fp16"
    assert precision_on(GPUS["l4"], "auto") == "bf16"
    assert precision_on(GPUS["t4"], "fp32") == "fp32"
    with pytest.raises(ConfigError, match="emulated on t4"):
        precision_on(GPUS["t4"], "bf16")
