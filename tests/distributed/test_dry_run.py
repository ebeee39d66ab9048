"""A dry run on two ranks, under each kind of engine, leaves nothing in the run directory."""

import re

import pytest

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("config", ["cpu-2", "cpu-2-zero2", "cpu-2-zero3", "fsdp2"])
def test_two_ranks_try_the_longest_examples(config, reviews_recipe, write_recipe, launch, tmp_path):
    directory = tmp_path / "run"
    process = launch(
        *("train", str(write_recipe(reviews_recipe)), "--dry-run", "--run-dir", str(directory)),
        config=config,
        options=("--num_processes", "2", "--num_machines", "1") if config == "fsdp2" else (),
    )
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "= 2 processes x micro-batch 8 x accumulation 1" in output
    assert output.count("dry run: 2 steps of 1 micro-batch [8, 32]") == 1
    assert output.count("the process grew by") == 1
    assert output.count("the plan counts") == 1, output
    assert not directory.exists()


@pytest.mark.parametrize("config", ["cpu-2", "cpu-2-zero2"])
def test_two_ranks_accumulate(config, reviews_recipe, write_recipe, launch, tmp_path):
    reviews_recipe["batch"]["micro_batch_size"] = 2
    process = launch(
        *(
            "train",
            str(write_recipe(reviews_recipe)),
            "--dry-run",
            "--run-dir",
            str(tmp_path / "r"),
        ),
        config=config,
    )
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert "dry run: 2 steps of 2 micro-batches [2, 32]" in output
    assert "the plan counts" in output
    assert not (tmp_path / "r").exists()


def test_the_plan_knows_whether_fsdp_keeps_gathered_layers(
    reviews_recipe, write_recipe, launch, tmp_path
):
    reviews_recipe["model"]["architecture"] |= {"num_hidden_layers": 6, "intermediate_size": 8000}
    planned = {}
    for resharding in ("true", "false"):
        process = launch(
            *("train", str(write_recipe(reviews_recipe)), "--dry-run"),
            *("--run-dir", str(tmp_path / "run")),
            config="fsdp2",
            options=(
                *("--num_processes", "2", "--num_machines", "1"),
                *("--fsdp_reshard_after_forward", resharding),
            ),
        )
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        planned[resharding] = int(re.findall(r"the plan counts (\d+) MiB of tensors", output)[0])
    assert planned["false"] > planned["true"]
