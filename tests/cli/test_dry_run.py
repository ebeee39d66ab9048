"""`trainer train --dry-run`: real steps on the longest examples, and no trace of them."""

import re

import numpy as np
import pytest
import torch
from support.command_line import invoke, run
from support.task_cases import CASES

from trainer.assembly.build import build_run
from trainer.engines.accelerator import launched
from trainer.planning.dry_run import DryRun, longest_micro_batch
from trainer.tasks.recipe import parse_recipe
from trainer.tracking.time_to_go import Planned


def entries(folder):
    """Returns every path below a folder with its size and the time of its last change."""
    return {
        (path, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, which is empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def peak(output):
    return int(re.findall(r"the process grew by ([\d,]+) MiB", output)[0].replace(",", ""))


@pytest.mark.parametrize("options", [(), ("--smoke",)])
@pytest.mark.parametrize("tuning", [{"mode": "full"}, {"mode": "lora", "r": 4}])
def test_nothing_is_left(tuning, options, reviews_recipe, write_recipe, here):
    reviews_recipe["tuning"] = tuning
    reviews_recipe["tracking"]["trackers"] = ["tensorboard"]
    output = run("train", write_recipe(reviews_recipe), "--dry-run", *options)
    assert not list(here.iterdir())
    assert f"tuning {tuning['mode']}" in output
    assert "20 steps of 16 = 1 process" in output or options
    shape = "1 micro-batch" if options else "2 micro-batches [8, 32]"
    assert f"dry run: 2 steps of {shape}" in output
    assert peak(output) < 2000
    assert output.endswith("nothing was written into the run directory\n")


def test_a_run_directory_stays_as_it_is(reviews_recipe, write_recipe, here):
    recipe = write_recipe(reviews_recipe)
    run("train", recipe, "--run-dir", "run")
    before = entries(here)
    run("train", recipe, "--run-dir", "run", "--dry-run")
    assert entries(here) == before


@pytest.mark.parametrize("case", ["question_answering", "causal_lm-instructions", "masked_lm"])
def test_every_task_can_be_tried(case, write_recipe, here):
    recipe = write_recipe({**CASES[case].recipe(), "schedule": {"steps": 4}})
    assert "dry run: 2 steps" in run("train", recipe, "--dry-run")
    assert not list(here.iterdir())


def test_the_micro_batch_has_the_longest_examples(reviews_recipe, here):
    with launched(parse_recipe(reviews_recipe, "test"), here) as accelerator:
        built = build_run(
            parse_recipe(reviews_recipe, "test"), accelerator, here, keeps_tokenizer=False
        )
        batch = longest_micro_batch(built)
    lengths = np.sort(built.splits["train"].lengths)[::-1][:8]
    assert batch.inputs["input_ids"].shape == (8, lengths[0])
    mask = batch.inputs.get("attention_mask")
    tokens = torch.full((8,), lengths[0]) if mask is None else mask.sum(1)
    assert sorted(tokens.tolist(), reverse=True) == lengths.tolist()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            ("--resume", "never"),
            "--resume does not apply to --dry-run, which takes two steps; leave",
        ),
        (("--time-limit", "2h"), "--time-limit does not apply to --dry-run"),
        (("--set", "batch.micro_batch_size=7"), "7 does not divide global_batch_size=16"),
        (("--set", "data.source.num_rows=no"), "data.source.num_rows"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_left(
    options, sentence, reviews_recipe, write_recipe, here
):
    ended = invoke("train", write_recipe(reviews_recipe), "--dry-run", *options)
    assert ended.exit_code == 2
    assert sentence in ended.stderr
    assert "Traceback" not in ended.output
    assert not list(here.iterdir())


def test_the_process_grows_by_the_planned_tensors(commands, reviews_recipe, write_recipe):
    """Weights, gradients and moments of 13 million weights take 200 MiB."""
    reviews_recipe["model"]["architecture"] |= {"intermediate_size": 200_000}
    code, output, *_ = commands.run("train", str(write_recipe(reviews_recipe)), "--dry-run")
    assert code == 0, output
    planned = int(re.findall(r"the plan counts (\d+) MiB of tensors", output)[0])
    assert 200 < planned < peak(output) < planned + 250


def test_what_does_not_fit_into_memory_is_said(commands, reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["model"]["architecture"] |= {"num_hidden_layers": 2, "intermediate_size": 200000}
    reviews_recipe["batch"] |= {"global_batch_size": 128, "micro_batch_size": 128}
    code, output, *_ = commands.run(
        *("train", str(write_recipe(reviews_recipe)), "--dry-run"),
        *("--run-dir", str(tmp_path / "run")),
        limits={"RLIMIT_AS": 5 * 2**30 // 4},
    )
    assert code == 2, output
    assert "out of memory in step 1, at [128, 32] (examples, tokens)" in output
    assert "Traceback" not in output
    assert not (tmp_path / "run").exists()


def measured(**values):
    known = {"shape": (8, 96), "num_micro_batches": 2, "num_steps": 2, "seconds": 1.5}
    none = {"allocated": None, "reserved": None, "grown": None}
    return DryRun(**known, **(none | values))


def test_the_peak_stands_beside_the_planned_one():
    on_gpu = measured(allocated=3 * 2**30, reserved=4 * 2**30)
    assert on_gpu.lines(Planned(memory_bytes=3000 * 2**20))[1] == (
        "  peak memory of a process: 3,072 MiB allocated (planned 3,000 MiB), 4,096 MiB reserved"
    )
    assert "3,072 MiB allocated (not planned)" in on_gpu.lines(None)[1]
    on_cpu = measured(grown=5 * 2**20)
    assert on_cpu.lines(None)[1] == (
        "  peak memory: the process grew by 5 MiB of resident memory, libraries included"
    )
    assert on_cpu.lines(Planned(memory_bytes=3 * 2**20))[1].endswith(
        "; the plan counts 3 MiB of tensors"
    )
