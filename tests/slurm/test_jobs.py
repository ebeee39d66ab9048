"""Jobs of a real cluster stop in time, are requeued, and end with the same weights."""

import signal
from pathlib import Path

import pytest
import torch
import yaml
from support.launches import Finished
from support.paths import ROOT
from support.reviews_recipe import reviews_recipe

pytestmark = pytest.mark.slurm
STEPS = 800  # long enough for another job to preempt this one
TWO_NODES = ("--gres=none", "slurm/ddp-multinode.sbatch")
ONE_RANK = {"TRAINER_CONFIG": "accelerate_configs/gpu-1.yaml", "TRAINER_RANKS_PER_NODE": "1"}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> str:
    changes = {
        "schedule": {"steps": STEPS, "warmup_ratio": 0.1},
        "evaluation": {"baseline": False, "every": STEPS, "metric": "accuracy", "mode": "max"},
        "checkpoint": {"every_steps": STEPS, "keep_last": 2, "verify_export": False},
        "tracking": {"trackers": [], "log_every_steps": 1},
    }
    file = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
    file.write_text(yaml.safe_dump(reviews_recipe() | changes))
    return str(file)


@pytest.fixture(scope="module")
def whole(cluster, recipe, tmp_path_factory) -> Finished:
    """The uninterrupted run, on two nodes."""
    run = tmp_path_factory.mktemp("whole") / "run"
    job = cluster.submit(*TWO_NODES, recipe, "--run-dir", str(run))
    ended = cluster.wait_for_end(job)
    assert (ended["JobState"], ended["ExitCode"]) == ("COMPLETED", "0:0"), cluster.log(job)
    return Finished(run, 0, cluster.log(job))


@pytest.fixture(autouse=True)
def no_job_is_left(cluster):
    yield
    cluster.call("scancel", "--user=root")


def wait_for_step(cluster, job: str, run: Path, step: int) -> None:
    file = run / "metrics.jsonl"
    line = f'"step": {step}, '
    cluster.wait_until(lambda: file.is_file() and line in file.read_text(), job)


def test_ranks_of_two_nodes_form_one_world(whole):
    counts = {"exit_code": 0, "step": STEPS, "num_steps": STEPS}
    assert whole.status() == {"state": "done", **counts, "message": "done"}
    assert whole.results()["processes"] == 2
    logs = sorted(path.name for path in (whole.directory / "logs").glob("*.log"))
    assert [name.rpartition("-node-")[2] for name in logs] == ["0.log", "1.log"]


def test_a_job_that_is_stopped_and_then_preempted_is_requeued_and_ends_with_the_same_weights(
    cluster, recipe, whole, tmp_path
):
    run = tmp_path / "run"
    job = cluster.submit(*TWO_NODES, recipe, "--run-dir", str(run), TRAINER_MAX_REQUEUES="2")
    wait_for_step(cluster, job, run, 30)
    cluster.call("scancel", "--signal=USR1", "--batch", job)  # as --signal=B:USR1 does
    cluster.wait_until(lambda: cluster.show(job)["Restarts"] == "1", job)
    stopped = Finished(run, 85, "").status()
    assert (stopped["state"], stopped["exit_code"]) == ("stopped", 85)
    assert "status.json says stopped, exit code 85" in cluster.log(job)

    wait_for_step(cluster, job, run, stopped["step"] + 30)
    urgent = cluster.submit("--partition=urgent", "--nodes=2", "--exclusive", "--wrap", "sleep 1")
    assert cluster.wait_for_end(urgent)["JobState"] == "COMPLETED"
    assert Finished(run, 85, "").status()["step"] < STEPS
    ended = cluster.wait_for_end(job)
    assert (ended["JobState"], ended["Restarts"]) == ("COMPLETED", "2"), cluster.log(job)
    done = Finished(run, 0, "").weights(STEPS)
    for name, tensor in whole.weights(STEPS).items():
        assert torch.equal(tensor, done[name]), name


def test_a_signal_that_only_the_script_of_a_node_gets_reaches_its_ranks(cluster, recipe, tmp_path):
    """SLURM signals the batch script alone if it tracks processes by cgroup."""
    run = tmp_path / "run"
    job = cluster.submit(
        *("slurm/cpu.sbatch", recipe, "--run-dir", str(run), "--set", "schedule.steps=50000")
    )
    wait_for_step(cluster, job, run, 30)
    (script,) = (
        process
        for process in cluster.processes(job)
        if process.cmdline()[1:2] == [f"{ROOT}/slurm/launch-node.sh"]
    )
    script.send_signal(signal.SIGUSR1)
    cluster.wait_until(lambda: cluster.show(job)["Restarts"] == "1", job)
    cluster.call("scancel", job)
    status = Finished(run, 85, "").status()
    assert (status["state"], status["exit_code"]) == ("stopped", 85)
    cluster.wait_for_end(job, 60)


@pytest.mark.parametrize("rank", ["0", pytest.param("1", marks=pytest.mark.slow)])
def test_a_killed_rank_ends_the_job_within_a_minute(rank, cluster, recipe, tmp_path):
    run = tmp_path / "run"
    job = cluster.submit(*TWO_NODES, recipe, "--run-dir", str(run), "--set", "schedule.steps=50000")
    wait_for_step(cluster, job, run, 30)
    ranks = {process.environ().get("RANK"): process for process in cluster.processes(job)}
    victim = ranks[rank]
    victim.send_signal(signal.SIGKILL)
    ended = cluster.wait_for_end(job, 60)
    status = Finished(run, 1, "").status()
    assert ended["JobState"] == "FAILED", cluster.log(job)
    assert ended["ExitCode"] == f"{status['exit_code']}:0"
    assert status["state"] == "failed"
    assert "killed" in status["message"]
    cluster.wait_until(lambda: not cluster.processes(job), job, 20)


def test_the_script_reports_a_killed_step_that_no_rank_can_report(cluster, recipe, tmp_path):
    run = tmp_path / "run"
    job = cluster.submit(
        *("--gres=gpu:2", "slurm/node.sbatch", recipe, "--run-dir", str(run)),
        *("--set", "schedule.steps=50000"),
    )
    wait_for_step(cluster, job, run, 30)
    ranks = [process for process in cluster.processes(job) if "RANK" in process.environ()]
    assert len(ranks) == 2  # one for each GPU of the node
    cluster.call("scancel", "--signal=KILL", f"{job}.0")
    ended = cluster.wait_for_end(job, 60)
    assert (ended["JobState"], ended["ExitCode"]) == ("FAILED", "1:0"), cluster.log(job)
    status = Finished(run, 1, "").status()
    assert (status["state"], status["exit_code"]) == ("failed", 1)
    assert status["message"].startswith(f"the ranks of job {job} were killed")
    cluster.wait_until(lambda: not cluster.processes(job), job, 20)


def test_a_cancelled_job_saves_and_is_not_requeued(cluster, recipe, tmp_path):
    run = tmp_path / "run"
    job = cluster.submit(
        *("slurm/cpu.sbatch", recipe, "--run-dir", str(run), "--set", "schedule.steps=50000"),
        **ONE_RANK,
    )
    wait_for_step(cluster, job, run, 30)
    cluster.call("scancel", job)
    ended = cluster.wait_for_end(job, 60)
    assert (ended["JobState"], ended["Restarts"]) == ("CANCELLED", "0"), cluster.log(job)
    status = Finished(run, 85, "").status()
    assert (status["state"], status["exit_code"]) == ("stopped", 85)
    assert Finished(run, 85, "").weights(status["step"])


def test_a_job_near_its_time_limit_is_requeued_as_often_as_allowed(cluster, recipe, tmp_path):
    run = tmp_path / "run"
    arguments = (recipe, "--run-dir", str(run), "--set", "schedule.steps=200000")
    limits = ("--time=1", "--signal=B:USR1@40")  # SLURM may be half a minute early
    job = cluster.submit(
        *(*limits, "slurm/cpu.sbatch", *arguments, "--resume", "never"),
        **ONE_RANK,
        TRAINER_MAX_REQUEUES="1",
    )
    ended = cluster.wait_for_end(job)
    log = cluster.log(job)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "85:0", "1"), log
    assert log.count("SIGUSR1: asking the ranks to save and stop") == 2
    assert "TRAINER_MAX_REQUEUES=1 is reached" in log
    before = Finished(run, 85, "").status()
    assert (before["state"], before["exit_code"]) == ("stopped", 85)

    # The status.json of that job does not make another job requeue itself.
    settings = {**ONE_RANK, "TRAINER_CONFIG": "accelerate_configs/none.yaml"}
    job = cluster.submit("slurm/cpu.sbatch", *arguments, **settings)
    ended = cluster.wait_for_end(job, 60)
    assert (ended["JobState"], ended["ExitCode"], ended["Restarts"]) == ("FAILED", "1:0", "0")
    assert Finished(run, 85, "").status() == before


def test_a_dependent_job_compares_the_seeds_of_an_array(cluster, recipe, tmp_path):
    folder = tmp_path / "seeds"
    array = cluster.submit(
        *("--array=1-2", "slurm/array-seeds.sbatch", recipe, "--run-dir", str(folder)),
        *("--set", "schedule.steps=20", "--set", "evaluation.every=20"),
    )
    comparison = cluster.submit(
        *(f"--dependency=afterok:{array}", "--wrap"),
        f'"$TRAINER_VENV/bin/trainer" compare {folder}',
    )
    ended = cluster.wait_for_end(comparison)
    assert ended["JobState"] == "COMPLETED", cluster.log(comparison)
    assert sorted(path.name for path in folder.iterdir()) == ["seed=1", "seed=2"]
    assert "| 1, 2  |" in cluster.log(comparison), cluster.log(comparison)


@pytest.mark.slow
def test_zero3_shards_over_two_nodes(cluster, recipe, tmp_path, monkeypatch):
    """Both nodes are this host, so extensions are compiled once."""
    from trainer.engines.extension_locks import use_own_folder

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", "")  # monkeypatch restores it afterwards
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    run = tmp_path / "run"
    job = cluster.submit(
        *("--gres=none", "slurm/zero3-multinode.sbatch", recipe, "--run-dir", str(run)),
        *("--set", "schedule.steps=3", "--set", "evaluation.every=3"),
        TORCH_EXTENSIONS_DIR=str(use_own_folder()),
    )
    assert cluster.wait_for_end(job, 400)["JobState"] == "COMPLETED", cluster.log(job)
    assert Finished(run, 0, "").results()["processes"] == 2
