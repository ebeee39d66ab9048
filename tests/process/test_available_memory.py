"""Memory that is left: the least of the machine's and of every control group's."""

from pathlib import Path

import pytest

from trainer.process.available_memory import available_bytes

MEBIBYTE = 2**20


def machine(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    every = {
        "proc/meminfo": "MemTotal: 9 kB\nMemAvailable:    4096 kB\n",
        "proc/self/cgroup": cgroup,
        **files,
    }
    for name, text in every.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def second(folder: str, limit: str, used: int, cached: int = 0) -> dict[str, str]:
    place = f"sys/fs/cgroup/{folder}".rstrip("/")
    return {
        f"{place}/memory.max": f"{limit}\n",
        f"{place}/memory.current": f"{used}\n",
        f"{place}/memory.stat": f"anon 1\ninactive_file {cached}\n",
    }


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, 4 * MEBIBYTE),
        (second("job/step", "max", 5), 4 * MEBIBYTE),
        (second("job/step", str(3 * MEBIBYTE), MEBIBYTE), 2 * MEBIBYTE),
        (second("job/step", str(3 * MEBIBYTE), 2 * MEBIBYTE, MEBIBYTE), 2 * MEBIBYTE),
        (second("job", str(MEBIBYTE), 0), MEBIBYTE),  # of a group above
        (second("job/step", str(MEBIBYTE), 2 * MEBIBYTE), 0),
    ],
)
def test_the_least_limit_counts(files: dict[str, str], left: int, tmp_path: Path) -> None:
    assert available_bytes(machine(tmp_path, "0::/job/step\n", files)) == left


def test_the_first_version_of_control_groups_counts_too(tmp_path: Path) -> None:
    place = "sys/fs/cgroup/memory/job"
    files = {
        f"{place}/memory.limit_in_bytes": str(2 * MEBIBYTE),
        f"{place}/memory.usage_in_bytes": str(MEBIBYTE),
        f"{place}/memory.stat": "total_inactive_file 1024\n",
    }
    left = available_bytes(machine(tmp_path, "7:memory:/job\n3:cpu:/other\n", files))
    assert left == MEBIBYTE + 1024


def test_without_proc_nothing_is_known(tmp_path: Path) -> None:
    assert available_bytes(tmp_path) is None
