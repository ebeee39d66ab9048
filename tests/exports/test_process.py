"""The fresh process: what it inherits, and what its end says of an export."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from trainer.exports import process
from trainer.exports.process import NotRunError, answers_of, environment

JOB: dict[str, Any] = {"num_threads": 1}


def ending(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns the findings after another program has run in place of the process."""
    (folder / "program.py").write_text(program)
    (folder / "exchange").mkdir()
    monkeypatch.setattr(process, "PROGRAM", folder / "program.py")
    return answers_of(JOB, {}, folder / "exchange")[0]


def test_it_has_no_part_in_the_launch(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "ACCELERATE_USE_FSDP", "FSDP_VERSION"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("HF_HOME", "/kept")
    given = environment(3)
    assert not {"RANK", "LOCAL_RANK", "MASTER_ADDR", "ACCELERATE_USE_FSDP"} & given.keys()
    assert given["HF_HOME"] == "/kept"
    assert (given["CUDA_VISIBLE_DEVICES"], given["HF_HUB_OFFLINE"]) == ("", "1")
    assert given["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "the process was killed, per"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "the process was killed, per"),
        ("raise OSError(28, 'No space left')", "the disk refused it: OSError: [Errno 28] No space"),
        ("raise MemoryError('full')", "memory was not sufficient: MemoryError: full"),
        (
            "raise RuntimeError('DefaultCPUAllocator: not enough memory')",
            "memory was not sufficient: RuntimeError",
        ),
    ],
)
def test_what_the_machine_lacks_says_nothing_of_the_export(
    program: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotRunError) as caught:
        ending(program, tmp_path, monkeypatch)
    assert str(caught.value).startswith(reason)


def test_a_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LONGEST_SECONDS", 0.2)
    with pytest.raises(NotRunError, match=r"took more than 0\.2 seconds"):
        ending("import time; time.sleep(60)", tmp_path, monkeypatch)


def test_a_process_that_fails_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = ending("raise ValueError('no such head')", tmp_path, monkeypatch)
    assert findings["problems"] == ["a fresh process ends with 1: ValueError: no such head"]


def test_its_neighbours_do_not_hide_libraries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "json.py").write_text("raise ImportError('a neighbour')")
    findings = ending("import json; raise ValueError(json.dumps(1))", tmp_path, monkeypatch)
    assert findings["problems"] == ["a fresh process ends with 1: ValueError: 1"]


@pytest.mark.distributed
def test_it_does_not_outlive_the_process_that_started_it(tmp_path: Path) -> None:
    job = {**JOB, "registration": "import time; time.sleep(60)", "folder": "model"}
    (tmp_path / "job.json").write_text(json.dumps(job))
    save_file({}, tmp_path / "inputs.safetensors")
    program = Path(process.__file__).with_name("fresh_process.py")
    command = [sys.executable, "-P", str(program), str(tmp_path)]
    started = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert started.returncode == -15, started.stderr
