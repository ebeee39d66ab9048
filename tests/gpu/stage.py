"""The record that a stage writes as it proceeds: checks, figures, machine and versions."""

import argparse
import json
import os
import platform
import subprocess
import traceback
from collections.abc import Generator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "triton", "transformers", "accelerate", "deepspeed", "peft", "bitsandbytes"),
    *("trl", "liger-kernel", "datasets", "numpy", "huggingface-hub"),
)
REHEARSAL = "a rehearsal on a CPU with tiny shapes: its figures mean nothing"


class Stage:
    """The record of one stage, which is rewritten after each check and figure."""

    def __init__(self, file: Path, work: Path, device: str, *, tiny: bool) -> None:
        self.file, self.work, self.device, self.tiny = file, work, device, tiny
        self.checks: dict[str, dict[str, Any]] = {}
        self.figures: dict[str, Any] = {}
        self.machine, self.versions = machine(device), versions()
        self.write()

    @classmethod
    def from_arguments(cls) -> "Stage":
        parser = argparse.ArgumentParser()
        parser.add_argument("--out", type=Path, required=True, help="the JSON file of the stage")
        parser.add_argument("--work", type=Path, required=True, help="a folder of all stages")
        parser.add_argument("--device", choices=["cuda", "cpu"], required=True)
        parser.add_argument("--tiny", action="store_true")
        given = parser.parse_args()
        return cls(given.out, given.work, given.device, tiny=given.tiny)

    @property
    def on_gpu(self) -> bool:
        return self.device == "cuda"

    def check(self, name: str, passed: bool, **found: Any) -> None:
        """Records whether a check passed, and the values that decided it."""
        self.checks[name] = {"result": "passed" if passed else "failed", **found}
        self.write()

    def not_run(self, name: str, reason: str) -> None:
        """Records a check that this machine cannot make."""
        self.checks[name] = {"result": f"not run: {reason}"}
        self.write()

    def figure(self, name: str, value: Any) -> None:
        self.figures[name] = value
        self.write()

    @contextmanager
    def guarded(self, name: str) -> Generator[None]:
        """Context manager: an error inside fails the check instead of ending the stage."""
        try:
            yield
        except Exception as error:
            print(traceback.format_exc(), flush=True)
            self.check(name, False, error=f"{type(error).__name__}: {error}"[:4000])

    def write(self) -> None:
        record = {
            "stage": self.file.stem,
            "state": "running",
            "note": REHEARSAL if self.tiny else None,
            "checks": self.checks,
            "figures": self.figures,
            "machine": self.machine,
            "versions": self.versions,
        }
        write_json(self.file, record)


def write_json(file: Path, record: Any) -> None:
    staging = file.with_name(f".{file.name}")
    staging.write_text(json.dumps(record, indent=2) + "\n")
    staging.replace(file)


def machine(device: str) -> dict[str, Any]:
    """Describes the machine for readers of the figures."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": None,
    }
    if device == "cuda":
        query = "name,memory.total,driver_version,clocks.max.sm,power.limit"
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
            found["gpu"] = dict(zip(query.split(","), done.stdout.split(", "), strict=False))
        except (OSError, subprocess.TimeoutExpired) as error:
            found["gpu"] = f"nvidia-smi: {error}"
    return found


def versions() -> dict[str, str]:
    """Returns the version of each package, or that it is missing."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "missing"
    return found
