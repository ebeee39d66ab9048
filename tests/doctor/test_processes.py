"""CPU threads, and what a job of SLURM was given."""

import os
import time

import pytest
import torch
from support.findings import by_code, levels

from trainer.doctor.slurm import about_gpus_of_job, about_slurm, seconds_left
from trainer.doctor.threads import about_threads


def test_threads_are_held_against_the_cores(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    try:
        torch.set_num_threads(1)
        assert levels(about_threads()) == {"threads": "fine"}
        monkeypatch.setenv("OMP_NUM_THREADS", "8")
        (chosen,) = about_threads()
        assert (chosen.code, chosen.level) == ("too-many-threads", "warning")
        assert chosen.advice == "set OMP_NUM_THREADS=1"
        monkeypatch.delenv("OMP_NUM_THREADS")
        torch.set_num_threads(8)
        (lowered,) = about_threads()
        assert lowered.message == (
            "8 threads slow each other down on 1 core (SLURM_CPUS_PER_TASK): `trainer train` uses 1"
        )
        assert torch.get_num_threads() == 8
    finally:
        torch.set_num_threads(before)


def test_what_a_job_of_slurm_was_given():
    assert not list(about_slurm({}))
    job = {
        "SLURM_JOB_ID": "7",
        "SLURM_NNODES": "2",
        "SLURM_NTASKS": "8",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_MEM_PER_NODE": "64000",
        "SLURM_JOB_END_TIME": str(int(time.time()) + 7300),
    }
    findings = by_code(about_slurm(job))
    expected = "job 7 was given: nodes 2, tasks 8, CPUs of a task 4, GPUs of this node 4, MB of"
    assert findings["slurm"].message.startswith(expected)
    assert findings["slurm-time"].level == "fine"
    assert findings["slurm-time"].message == "the job ends in 2 h"
    never = by_code(about_slurm({**job, "SLURM_JOB_END_TIME": "9" * 20}))
    assert never["slurm-time"].level == "fine"
    (nothing, *_) = about_slurm({"SLURM_JOB_ID": "7"})
    assert nothing.message == "job 7 does not say what it was given"
    short = {**job, "SLURM_JOB_END_TIME": str(int(time.time()) + 200)}
    del short["SLURM_CPUS_PER_TASK"]
    assert levels(about_slurm(short)) == {
        "slurm": "fine",
        "slurm-cpus": "warning",
        "slurm-time": "warning",
    }
    assert levels(about_gpus_of_job(0, job)) == {"slurm-gpus": "warning"}
    assert not list(about_gpus_of_job(4, job))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1-02:03:04", 93784), ("02:03:04", 7384), ("3:04", 184), ("UNLIMITED", None), ("", None)],
)
def test_a_time_of_squeue_is_read(text, seconds):
    assert seconds_left(text) == seconds


def test_squeue_is_asked_if_no_variable_says_the_end(tmp_path, monkeypatch):
    program = tmp_path / "squeue"
    program.write_text('#!/bin/sh\n[ "$3" = 7 ] && echo 5:00\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    findings = by_code(about_slurm({"SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "1"}))
    assert findings["slurm-time"].figures == {"seconds": 300}
    unknown = by_code(about_slurm({"SLURM_JOB_ID": "8", "SLURM_CPUS_PER_TASK": "1"}))
    assert unknown["slurm-time"].level == "note"
