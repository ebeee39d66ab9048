"""The control groups of Linux that hold this process, as containers and SLURM set them."""

from collections.abc import Iterator
from pathlib import Path


def control_groups(root: Path, controller: str) -> Iterator[Path]:
    """Yields the folder of each control group that holds this process and may limit what a
    controller such as "memory" counts, from its own group outwards.

    Folders are of the second version of control groups or of the first. `root` is the folder of
    /proc and /sys.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base = mounted
        elif controller in controllers.split(","):
            base = mounted / controllers
            base = base if base.is_dir() else mounted / controller
        else:
            continue
        group = base / path.lstrip("/")
        for folder in (group, *group.parents):
            yield folder
            if folder == base:
                break
