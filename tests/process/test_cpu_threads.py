"""Torch uses as many threads as the process is allowed cores, and no number that fits changes."""

import logging
import os
import subprocess
import sys

import pytest
import torch

import trainer
from trainer.process.cpu_threads import CoreLimit, chosen_threads, core_limit, fit_threads

AFFINITY = len(os.sched_getaffinity(0))


def system(root, lines, **files):
    """Writes /proc/self/cgroup and control files below a folder, and returns it."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(lines)
    for name, text in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return root


@pytest.fixture
def threads(monkeypatch):
    """Gives torch eight threads that nobody chose, and takes them back."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(8)
    yield
    torch.set_num_threads(before)


def test_without_limits_it_is_the_affinity(tmp_path):
    assert core_limit(tmp_path, {}) == CoreLimit(AFFINITY, 1, "CPU affinity")


def test_the_affinity_of_the_process_counts():
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from trainer.process.cpu_threads import core_limit; print(core_limit().cores)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize(
    ("lines", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "100000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/cpu.max": "50000 100000\n", "a/b/cpu.max": "max 100000\n"}, 1),
        ("0::/a\n", {"a/cpu.max": "what is this\n"}, None),
        (
            "4:memory:/x\n3:cpu,cpuacct:/docker/1\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            1,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
    ],
    ids=["second", "unlimited", "parent", "unreadable", "first", "first-unlimited"],
)
def test_the_quota_of_a_control_group_counts(lines, files, cores, tmp_path):
    limit = core_limit(system(tmp_path, lines, **files), {})
    if cores is None:
        assert limit.origin == "CPU affinity"
    else:
        assert (limit.cores, limit.origin) == (cores, "CPU quota of the control group")


def test_a_quota_is_shared_by_the_ranks_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(2 * AFFINITY))
    root = system(tmp_path, "0::/\n", **{"cpu.max": f"{4 * AFFINITY}00000 100000\n"})
    limit = core_limit(root, dict(os.environ))
    assert limit.num_threads == 1
    assert str(limit).endswith(f"shared by {2 * AFFINITY} ranks")


def test_a_task_of_slurm_has_its_own_cores(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    task = {"SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "1"}
    ranks = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "WORLD_SIZE": "4", "RANK": "2"}
    bound = {**task, **ranks, "SLURM_CPUS_ON_NODE": str(4 * AFFINITY)}
    assert core_limit(tmp_path, bound) == CoreLimit(1, 1, "SLURM_CPUS_PER_TASK")
    free = {**bound, "SLURM_CPUS_PER_TASK": str(AFFINITY)}  # bound to its own cores
    assert core_limit(tmp_path, free).num_threads == AFFINITY
    launched = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "WORLD_SIZE": "4", "RANK": "0"}
    launcher = {**task, **launched, "SLURM_CPUS_PER_TASK": "4"}  # its ranks share the task
    assert core_limit(tmp_path, launcher).num_threads == 1
    batch = {"SLURM_CPUS_PER_TASK": "64", "SLURM_CPUS_ON_NODE": "1"}
    assert core_limit(tmp_path, batch) == CoreLimit(AFFINITY, 4, "CPU affinity")


def test_threads_are_lowered_once_and_it_is_said(threads, caplog):
    fit_threads(CoreLimit(6, 2, "a test"), chosen_threads())
    assert torch.get_num_threads() == 3
    warning = "torch uses 3 threads each instead of 8: 6 cores (a test), shared by 2 ranks"
    assert caplog.messages == [warning]
    fit_threads(CoreLimit(6, 2, "a test"), None)
    assert len(caplog.messages) == 1


def test_threads_that_fit_are_not_raised(threads, caplog):
    fit_threads(CoreLimit(64, 1, "a test"), None)
    assert torch.get_num_threads() == 8
    assert not caplog.messages


def test_a_chosen_number_stays_with_a_warning(threads, monkeypatch, caplog):
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    fit_threads(CoreLimit(2, 1, "a test"), chosen_threads())
    assert torch.get_num_threads() == 8
    warning = "8 threads slow each other down on 2 cores (a test); set OMP_NUM_THREADS=2"
    assert caplog.messages == [warning]


@pytest.mark.parametrize(
    ("variables", "number"),
    [
        ({}, None),
        ({"OMP_NUM_THREADS": "4,2"}, 4),
        ({"OMP_NUM_THREADS": "", "MKL_NUM_THREADS": "3"}, 3),
        ({"OMP_NUM_THREADS": "many"}, None),
        ({"OMP_NUM_THREADS": "0"}, None),
    ],
)
def test_what_the_environment_chooses(variables, number):
    assert chosen_threads(variables) == number


def test_only_the_first_rank_of_a_machine_says_it(threads, monkeypatch, caplog):
    monkeypatch.setenv("LOCAL_RANK", "1")
    fit_threads(CoreLimit(1, 1, "a test"), None)
    assert torch.get_num_threads() == 1
    assert not caplog.messages


def test_a_run_gives_the_threads_back(threads, reviews_recipe, tmp_path, monkeypatch, caplog):
    for name, value in {"SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "1"}.items():
        monkeypatch.setenv(name, value)
    used = []
    settings = {**reviews_recipe, "schedule": {"steps": 2, "name": "constant"}}
    with caplog.at_level(logging.WARNING, "trainer"):
        trainer.train(
            trainer.Recipe(**settings),
            run_dir=tmp_path / "run",
            progress=lambda _: used.append(torch.get_num_threads()),
        )
    assert set(used) == {1}
    assert torch.get_num_threads() == 8
    assert "torch uses 1 thread instead of 8: 1 core (SLURM_CPUS_PER_TASK)" in caplog.messages
