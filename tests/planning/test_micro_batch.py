"""The micro-batch that a run takes on a GPU: the largest that divides and fits."""

from dataclasses import replace

import pytest
import torch
from support.command_line import run

import trainer
from trainer.checkpoints.record import read_record
from trainer.engines.accelerator import launched
from trainer.errors import ConfigError
from trainer.planning.gpus import GPUS
from trainer.planning.launches import PlannedLaunch
from trainer.planning.micro_batch import micro_batch_of_run, micro_batch_on
from trainer.planning.plan import plan
from trainer.planning.target import gpu_of, with_memory_left
from trainer.tasks.recipe import parse_recipe

T4 = GPUS["t4"]
ALONE = PlannedLaunch()


@pytest.fixture
def values(reviews_recipe):
    """A recipe with 64 examples of 64 tokens a step."""
    reviews_recipe["batch"] = {"global_batch_size": 64, "max_seq_length": 64}
    reviews_recipe["model"]["architecture"] |= {"hidden_size": 64, "intermediate_size": 256}
    return reviews_recipe


@pytest.fixture
def on_gpu(monkeypatch):
    """Makes runs on this CPU plan their micro-batch for a T4 with this memory."""

    def use(memory):
        monkeypatch.setattr(
            "trainer.planning.planned_run.gpu_of", lambda _: replace(T4, memory=memory)
        )

    return use


def test_auto_is_the_largest_that_divides_and_fits(values):
    recipe = parse_recipe(values, "test")
    before = torch.get_rng_state()
    whole = micro_batch_on(recipe, T4, ALONE)
    assert torch.equal(torch.get_rng_state(), before)
    assert whole.size == 64
    assert whole.reason == (
        "micro_batch_size: auto is 64, the largest that divides 64 and fits with 64 tokens into t4"
    )
    needed = whole.memories.process(16, 64, T4)[1]
    assert needed < whole.memories.process(32, 64, T4)[1]
    assert micro_batch_on(recipe, replace(T4, memory=needed), ALONE).size == 16
    none = micro_batch_on(recipe, replace(T4, memory=2**20), ALONE)
    assert none.size == 1
    assert "not even that fits" in none.reason


def test_the_plan_of_a_given_size_tries_the_whole_share_too(values):
    """It holds no gradients during a forward pass, so it may be the largest that fits."""
    values["batch"]["micro_batch_size"] = 1
    planned = plan(parse_recipe(values, "test"), memory=T4.memory)
    assert planned.micro_batch_size == 1
    assert planned.gpus[0].largest_micro_batch == 64


def test_ranks_share_the_batch(values):
    launch = PlannedLaunch(engine="ddp", processes=4)
    chosen = micro_batch_on(parse_recipe(values, "test"), T4, launch)
    assert chosen.size == 16
    assert "the largest that divides 16 " in chosen.reason
    with pytest.raises(ConfigError, match="64 is not divisible by 3 processes"):
        micro_batch_on(parse_recipe(values, "test"), T4, PlannedLaunch(engine="ddp", processes=3))


@pytest.mark.parametrize(("size", "gpu", "taken"), [(4, T4, 4), ("auto", None, 16)])
def test_a_given_size_and_a_cpu_are_not_planned(size, gpu, taken, values):
    values["batch"]["micro_batch_size"] = size
    chosen = micro_batch_on(parse_recipe(values, "test"), gpu, ALONE)
    assert (chosen.size, chosen.reason, chosen.memories) == (taken, "", None)


def test_what_cannot_be_planned_takes_the_largest_up_to_16(values):
    values["model"] = {"name_or_path": "some/unknown\x1b[31m"}
    chosen = micro_batch_on(parse_recipe(values, "test"), T4, ALONE)
    assert (chosen.size, chosen.memories) == (16, None)
    assert chosen.reason.startswith(
        "micro_batch_size: auto is 16, the largest up to 16 that divides 64, because it cannot be "
        "planned: "
    )
    assert "\x1b" not in chosen.reason


def test_memory_of_other_processes_is_not_left():
    context, gib = T4.context, 2**30
    assert with_memory_left(T4, 10 * gib, 0).memory == 10 * gib + context
    assert with_memory_left(T4, 10 * gib, 2 * gib).memory == 12 * gib + context
    assert with_memory_left(T4, T4.memory, gib).memory == T4.memory
    assert gpu_of(torch.device("cpu")) is None


def test_a_run_says_how_its_micro_batch_was_chosen(values, tmp_path):
    recipe = parse_recipe(values, "test")
    with launched(recipe, tmp_path) as accelerator:
        gpu = replace(T4, memory=9 * 10**9)
        found = micro_batch_of_run(recipe, accelerator, gpu, None)
        assert found.chosen.size == 64
        longest = int(found.inputs.splits["train"].lengths.max())
        assert found.chosen.reason.endswith(f"fits with {longest} tokens into t4 with 9 GB left")
        assert found.chosen.memories.micro_batches(longest) >= {64}
        assert micro_batch_of_run(recipe, accelerator, None, None) is None
        given = parse_recipe(values | {"batch": values["batch"] | {"micro_batch_size": 8}}, "test")
        assert micro_batch_of_run(given, accelerator, gpu, None) is None


def test_a_run_takes_it_and_resumes_with_another(values, write_recipe, tmp_path, on_gpu):
    values["schedule"] = {"steps": 2}
    values["checkpoint"] |= {"every_steps": 1}
    recipe, directory, resumed = write_recipe(values), tmp_path / "run", tmp_path / "resumed"
    on_gpu(10**9)
    output = run("train", recipe, "--run-dir", directory)
    assert "1 process x micro-batch 64 x accumulation 1" in output
    assert "\n  micro_batch_size: auto is 64, the largest" in output
    assert "micro_batch_size: auto" in (directory / "config.yaml").read_text()
    on_gpu(2**20)
    checkpoint = directory / "checkpoints" / "step-00000001"
    output = run("train", recipe, "--run-dir", resumed, "--resume", checkpoint)
    assert "1 process x micro-batch 1 x accumulation 64" in output
    assert "micro_batch_size: auto is 1, and not even that fits" in output
    whole, other = trainer.load(directory).final["test"], trainer.load(resumed).final["test"]
    assert other["loss"] == pytest.approx(whole["loss"], rel=1e-3)
    measured = trainer.evaluate(resumed, split="test", checkpoint="last")
    assert measured["loss"] == pytest.approx(other["loss"], rel=1e-5)


def test_a_run_that_continues_keeps_its_micro_batch_if_it_fits(
    values, write_recipe, tmp_path, on_gpu
):
    values["schedule"] = {"steps": 2}
    values["checkpoint"] |= {"every_steps": 1}
    values["batch"]["micro_batch_size"] = 8
    run("train", write_recipe(values), "--run-dir", tmp_path / "run")
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000001"
    assert read_record(checkpoint)["launch"]["micro_batch_size"] == 8
    values["batch"]["micro_batch_size"] = "auto"
    on_gpu(10**9)
    options = ("--run-dir", tmp_path / "resumed", "--resume", checkpoint)
    output = run("train", write_recipe(values), *options)
    assert "micro-batch 8 x accumulation 8" in output
    assert "auto is 8, as in the checkpoint from which the run continues" in output


def test_a_dry_run_takes_it(values, write_recipe, on_gpu):
    on_gpu(10**9)
    output = run("train", write_recipe(values), "--dry-run")
    assert "micro_batch_size: auto is 64" in output
    assert "1 micro-batch [64, " in output
