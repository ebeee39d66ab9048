"""Ranks that are forked from the warm server start like those that the launcher starts."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.launches import launch_command, launch_environment
from support.paths import PROGRAMS, ROOT

pytestmark = pytest.mark.distributed
PROGRAM = [str(PROGRAMS / "place.py")]
EACH_LAUNCH_HAS_ITS_OWN = {"MASTER_PORT", "PLACES", "TORCHELASTIC_ERROR_FILE"}
SET_BY_AN_IMPORT = {"PYTORCH_NVML_BASED_CUDA_CHECK"}
"""DeepSpeed sets it when it is imported, as in the warm server: how torch looks for GPUs."""


def places(folder: Path) -> list[dict[str, Any]]:
    """Returns what each rank saw, without what differs between any two launches."""
    seen = [json.loads((folder / f"{rank}.json").read_text()) for rank in (0, 1)]
    for place in seen:
        assert place["environment"].keys() > {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT"}
        for name in EACH_LAUNCH_HAS_ITS_OWN | SET_BY_AN_IMPORT:
            place["environment"].pop(name, None)
    return seen


@pytest.mark.parametrize("config", ["cpu-2", "cpu-2-zero3", "zero2-offload", "fsdp2"])
def test_a_rank_sees_what_it_sees_under_accelerate_launch(config, launch, tmp_path):
    """One configuration of each kind: DDP, DeepSpeed, DeepSpeed with offloading, FSDP2."""
    for name in ("real", "warm"):
        (tmp_path / name).mkdir()
    real = subprocess.run(
        launch_command("argument", config=config, program=PROGRAM),
        cwd=ROOT,
        env={**launch_environment(), "PLACES": str(tmp_path / "real")},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert real.returncode == 0, real.stderr
    warm = launch("argument", config=config, program=PROGRAM, PLACES=str(tmp_path / "warm"))
    output, _ = warm.communicate(timeout=200)
    assert warm.returncode == 0, output
    assert places(tmp_path / "real") == places(tmp_path / "warm")
