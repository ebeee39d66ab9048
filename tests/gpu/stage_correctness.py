"""Stage 1: a GPU learns what a CPU learns, in all engines and tuning modes, and nothing is lost.

Its processes run in parallel, one for each core and eight at most.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cases
import yaml
from stage import Stage
from support.launches import FSDP_ON_CPU, Finished, tensors_of
from support.paths import ROOT

HERE = Path(__file__).parent
ENGINES = ("zero2", "zero3", "fsdp2")
ENGINE_BOUND = cases.Bound(1e-5, 1e-3)
"""Engines sum the norm of gradients in another order."""
LOGITS_BOUND = 1e-4
LOG_CHARACTERS = 3500
SECONDS, SECONDS_ON_A_CPU = 130, 570
"""Processes that still run after this time are ended, so that the checks of others are made."""


class Processes:
    """Runs the processes of the stage, ends those that take too long, and keeps their output."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.folder = stage, stage.work / "correctness"
        self.folder.mkdir()
        self.end = time.monotonic() + (SECONDS if stage.on_gpu else SECONDS_ON_A_CPU)

    def run(self, name: str, command: list[str], **settings: str) -> int:
        """Runs a command until it ends or is ended, and returns its exit code."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **settings}
        with (self.folder / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
                text=True,
            )  # in the process group that `timeout` ends
            try:
                return process.wait(max(1.0, self.end - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.write("\nended here: the stage had no time left for it\n")
                log.flush()
                process.terminate()  # a launcher then ends its ranks
            try:
                return process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                return process.wait()

    def log(self, name: str) -> str:
        file = self.folder / f"{name}.log"
        return file.read_text(errors="replace")[-LOG_CHARACTERS:] if file.is_file() else "no log"

    def jobs(self, name: str, device: str, *jobs: str) -> None:
        """Runs jobs of jobs.py, such as device/five_steps."""
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {}
        tiny = ["--tiny"] if self.stage.tiny else []
        self.run(name, [str(HERE / "jobs.py"), str(self.folder), device, *tiny, *jobs], **hidden)

    def engine(self, config: str, *, signalled: bool = False) -> None:
        """Trains five steps on one rank of an engine; `signalled` stops and resumes the run."""
        directory = self.folder / config
        recipe = self.folder / f"{config}.yaml"
        recipe.write_text(yaml.safe_dump(cases.classification("full")))
        program = ["-m", "trainer"]
        if config == "fsdp2" and not self.stage.on_gpu:
            program = [str(FSDP_ON_CPU)]
        file = ROOT / "accelerate_configs" / f"{config}.yaml"
        launcher = ["-m", "accelerate.commands.launch", "--num_processes", "1"]
        launcher += ["--config_file", str(file)]
        train = ["train", str(recipe), "--run-dir", str(directory)]
        if signalled:
            mark = self.folder / "backend"
            name = f"{config}-stopped"
            self.run(name, [*launcher, str(HERE / "signalled.py"), *train], MARK=str(mark))
            status = directory / "status.json"
            if status.is_file():
                status.with_name("stopped.json").write_bytes(status.read_bytes())
        self.run(config, [*launcher, *program, *train])


def main() -> None:
    stage = Stage.from_arguments()
    processes = Processes(stage)
    device = stage.device

    def train_and_resume() -> None:
        processes.jobs("whole", device, "device/whole")
        processes.jobs("resumed", device, "device/resumed")

    work: list[Callable[[], Any]] = [
        lambda: processes.engine("zero2", signalled=True),
        lambda: processes.engine("zero3"),
        lambda: processes.engine("fsdp2"),
    ]
    if stage.tiny:  # one process, because imports take longest and there is one device
        jobs = [f"device/{job}" for job in ("five_steps", "paging", "export", "whole", "resumed")]
        work.insert(0, lambda: processes.jobs("jobs", device, "reference/five_steps", *jobs))
    else:
        work += [
            lambda: processes.jobs("reference", "cpu", "reference/five_steps"),
            lambda: processes.jobs("five_steps", device, "device/five_steps"),
            lambda: processes.jobs("paging", device, "device/paging", "device/export"),
            train_and_resume,
        ]
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        for done in [pool.submit(task) for task in work]:
            done.result()
    compare_devices(stage, processes)
    check_resumed(stage, processes)
    for config in ENGINES:
        check_engine(stage, processes, config)
    check_stop(stage, processes)
    check_fp16(stage, processes)
    check_paging(stage, processes)
    check_export(stage, processes)


def differences(one: Finished, other: Finished) -> dict[str, float]:
    """Returns how far apart two runs of five steps are, in the terms of a Bound."""
    losses = [[line["loss"] for line in run.lines()] for run in (one, other)]
    assert len(losses[0]) == len(losses[1]) == cases.NUM_STEPS, losses
    changes = [(run.weights(1), run.weights(cases.NUM_STEPS)) for run in (one, other)]
    apart = moved = 0.0
    for name, first in changes[0][0].items():
        mine = (changes[0][1][name] - first).double()
        theirs = (changes[1][1][name] - changes[1][0][name]).double()
        apart += float((mine - theirs).square().sum())
        moved += float(mine.square().sum())
    assert moved > 0, "nothing was learned"
    return {
        "loss": max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True)),
        "update": (apart / moved) ** 0.5,
    }


def within(found: dict[str, float], bound: cases.Bound) -> bool:
    return found["loss"] <= bound.loss and found["update"] <= bound.update


def finished(processes: Processes, root: str, name: str) -> Finished:
    """Returns a run of a job. Raises RuntimeError with its error if it failed."""
    directory = cases.folder_of(processes.folder / root, name)
    error = directory / "error"
    if error.is_file() or not (directory / "results.json").is_file():
        job = "reference" if root.startswith("reference") else root.rpartition("/")[2]
        log = "jobs" if processes.stage.tiny else job
        reason = error.read_text() if error.is_file() else f"it did not end; {processes.log(log)}"
        raise RuntimeError(f"{root}, {name}: {reason}")
    return Finished(directory, 0, "")


def compare_devices(stage: Stage, processes: Processes) -> None:
    for name in cases.five_steps(tiny=stage.tiny):
        title = f"five steps on a GPU equal those on a CPU: {name}"
        if stage.tiny and name not in cases.COMPARED_IN_A_REHEARSAL:
            with stage.guarded(title):
                finished(processes, "device/five_steps", name)
                stage.not_run(title, "no GPU; it ran on the CPU")
            continue
        with stage.guarded(title):
            one = finished(processes, "reference/five_steps", name)
            found = differences(one, finished(processes, "device/five_steps", name))
            bound = cases.bound_of(name)
            if stage.on_gpu or not within(found, bound):
                stage.check(title, within(found, bound), found=found, bound=vars(bound))
            else:
                stage.not_run(title, "no GPU; two runs on the CPU were compared")


def check_resumed(stage: Stage, processes: Processes) -> None:
    names = cases.resumed(on_gpu=True)
    here = cases.resumed(on_gpu=stage.on_gpu)
    for name in names:
        title = f"a resumed run equals the uninterrupted one exactly: {name}"
        if name not in here:
            stage.not_run(title, "a CPU does not compute in fp16")
            continue
        with stage.guarded(title):
            folders = [
                finished(processes, f"device/{job}", name).directory
                / "checkpoints"
                / "step-00000006"
                for job in ("whole", "resumed")
            ]
            unequal = [
                key
                for kind in ("model", "optimizer")
                for key in differing(*(tensors_of(folder, kind) for folder in folders))
            ]
            stage.check(title, not unequal, unequal=unequal[:10])


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Returns the names of tensors that are not the same to the last bit."""
    assert one
    assert one.keys() == other.keys()
    return [name for name, tensor in one.items() if not tensor.equal(other[name])]


def check_engine(stage: Stage, processes: Processes, config: str) -> None:
    title = f"{config} on one rank equals one process"
    with stage.guarded(title):
        run = Finished(processes.folder / config, 0, "")
        if run.status().get("state") != "done":
            raise RuntimeError(processes.log(config))
        found = differences(finished(processes, "device/five_steps", "full fp32"), run)
        passed = within(found, ENGINE_BOUND)
        stage.check(title, passed, found=found, bound=vars(ENGINE_BOUND))


def check_stop(stage: Stage, processes: Processes) -> None:
    """Checks that a signal under NCCL saves, ends with code 85, and that the run resumes."""
    title = "SIGTERM under NCCL saves, ends with 85, and the run resumes"
    with stage.guarded(title):
        run = Finished(processes.folder / "zero2", 0, "")
        if not (run.directory / "stopped.json").is_file():
            raise RuntimeError(processes.log("zero2-stopped"))
        stopped = json.loads((run.directory / "stopped.json").read_text())
        backend = (processes.folder / "backend").read_text()
        passed = (
            (stopped["state"], stopped["exit_code"]) == ("stopped", 85)
            and 2 <= stopped["step"] < cases.NUM_STEPS
            and run.status()["state"] == "done"
            and "resuming from" in (processes.folder / "zero2.log").read_text()
        )
        if passed and not stage.on_gpu:
            stage.not_run(title, f"NCCL needs a GPU; under {backend} it did")
        else:
            passed = passed and "nccl" in backend
            stage.check(title, passed, backend=backend, stopped=stopped)


def check_fp16(stage: Stage, processes: Processes) -> None:
    title = "fp16 scales the loss, and keeps the scale"
    if not stage.on_gpu:
        stage.not_run(title, "a CPU does not compute in fp16")
        return
    with stage.guarded(title):
        run = finished(processes, "device/five_steps", "full fp16")
        losses = [line["loss"] for line in run.lines()]
        first = finished(processes, "device/five_steps", "full fp32").lines()[0]["loss"]
        checkpoint = run.directory / "checkpoints" / f"step-{cases.NUM_STEPS:08d}"
        scale = json.loads((checkpoint / "state.json").read_text())["loss_scale"]["scale"]
        skipped = run.results()["skipped_steps"]
        expected = 2.0**16 / 2**skipped  # halved at each overflow; it grows after 2,000 steps
        passed = scale == expected and skipped < 5 and abs(losses[0] / first - 1) < 5e-3
        stage.check(title, passed, scale=scale, skipped=skipped, losses=losses, first_in_fp32=first)


def check_paging(stage: Stage, processes: Processes) -> None:
    title = "a paged optimizer pages its large moments, also after loading them"
    with stage.guarded(title):
        file = processes.folder / "device" / "paging" / "found.json"
        if not file.is_file():
            raise RuntimeError(processes.log("jobs" if stage.tiny else "paging"))
        found = json.loads(file.read_text())
        if stage.on_gpu:
            passed = all(state["all_large_ones"] and state["large"] > 0 for state in found.values())
            stage.check(title, passed, found=found)
        else:
            stage.not_run(title, "memory is paged on a GPU only")
    title = "paged moments learn what unpaged ones learn"
    with stage.guarded(title):
        one, other = (
            finished(processes, "device/five_steps", f"{name} fp32")
            for name in ("adamw_8bit", "paged_adamw_8bit")
        )
        found = differences(one, other)
        if stage.on_gpu:
            stage.check(title, within(found, ENGINE_BOUND), found=found, bound=vars(ENGINE_BOUND))
        else:
            stage.not_run(title, "memory is paged on a GPU only")


def check_export(stage: Stage, processes: Processes) -> None:
    title = "a model trained on 4 bits is the same after reloading"
    with stage.guarded(title):
        file = processes.folder / "device" / "export" / "found.json"
        if not file.is_file():
            raise RuntimeError(processes.log("jobs" if stage.tiny else "paging"))
        found = json.loads(file.read_text())
        passed = max(found["model"], found["adapter"]) <= LOGITS_BOUND
        stage.check(title, passed, largest_difference_of_logits=found, bound=LOGITS_BOUND)
        verified = found["fresh_process"]["verified"]
        stage.check("a fresh process verifies it", verified, found=found["fresh_process"])


if __name__ == "__main__":
    main()
