"""`trainer plan`: what it prints and refuses, and what more memory and other launches change."""

import json
import os
import subprocess
import sys

import pytest
from support.command_line import invoke, run
from support.paths import ROOT

from trainer.planning.plan import plan
from trainer.recipe.shipped import shipped_recipes
from trainer.tasks.recipe import load_recipe, parse_recipe

GIB = 2**30


@pytest.fixture
def planned(reviews_recipe):
    """Plans the recipe of the reviews with other values: (section values, options of a plan)."""

    def make(sections=None, **options):
        for section, values in (sections or {}).items():
            current = reviews_recipe.get(section)
            reviews_recipe[section] = {**current, **values} if isinstance(current, dict) else values
        return plan(parse_recipe(reviews_recipe, "test"), **options)

    return make


def refused(*arguments):
    ended = invoke("plan", *arguments)
    assert ended.exit_code == 2
    assert ended.stdout == ""
    assert "Traceback" not in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1
    return ended.stderr


def test_what_is_printed_is_the_json(reviews_recipe, write_recipe):
    recipe = write_recipe(reviews_recipe)
    values = json.loads(run("plan", recipe, "--gpu", "t4", "--json"))
    held = values["memory"]["held"]
    assert sum(held.values()) == values["memory"]["allocated"]
    assert values["memory"]["allocated"] == max(values["memory"]["phases"].values())
    assert values["memory"]["allocated"] <= values["memory"]["reserved"]
    assert [each["gpu"] for each in values["gpus"]] == ["t4"]
    assert values["fits"] is values["gpus"][0]["fits"] is True
    text = run("plan", recipe, "--gpu", "t4")
    assert "fits" in text
    assert all(character.isprintable() or character == "\n" for character in text)


def test_names_are_escaped(reviews_recipe, write_recipe):
    reviews_recipe["data"]["source"] = {"files": {"train": "a\x1b[2J\u202eb.csv"}}
    reviews_recipe["task"]["labels"] = ["\x1b]0;x\x07", "b"]
    text = invoke("plan", write_recipe(reviews_recipe), "--gpu", "t4").output
    assert all(character.isprintable() or character == "\n" for character in text)


def test_a_larger_gpu_fits_no_less(planned):
    small, large = (planned(memory=size).gpus[0] for size in (GIB, 24 * GIB))
    assert small.largest_micro_batch <= large.largest_micro_batch
    assert small.longest_sequence <= large.longest_sequence
    assert large.fits >= small.fits


@pytest.mark.parametrize("config", ["ddp", "zero1", "zero2", "zero3", "fsdp2"])
def test_launches(planned, config):
    batch = {"global_batch_size": 16, "micro_batch_size": 4}
    file = ROOT / "accelerate_configs" / f"{config}.yaml"
    values = planned({"batch": batch}, gpu="a100-40", processes=4, config=file).as_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["engine"] == config
    assert values["processes"] == 4
    assert values["bytes_sent"]["inside"] > 0
    if config in ("zero3", "fsdp2"):
        alone = planned(gpu="a100-40").as_dict()
        for kind in ("weights", "optimizer"):
            assert values["memory"]["held"][kind] < alone["memory"]["held"][kind] / 2


def test_an_unknown_gpu(reviews_recipe, write_recipe):
    said = refused(write_recipe(reviews_recipe), "--gpu", "a10080")
    assert "a100-80" in said


def test_sequences_longer_than_the_model_takes(reviews_recipe, write_recipe):
    said = refused(write_recipe(reviews_recipe), "--set", "batch.max_seq_length=65")
    assert "65 is more than the 64 positions" in said


def test_a_launch_configuration_that_does_not_exist(reviews_recipe, write_recipe):
    assert "absent.yaml" in refused(write_recipe(reviews_recipe), "--config", "absent.yaml")


def test_a_model_without_numbers(reviews_recipe, write_recipe):
    reviews_recipe["model"] = {"name_or_path": "nobody/nothing"}
    said = refused(write_recipe(reviews_recipe), "--gpu", "t4")
    assert "nobody/nothing" in said
    assert "trainer prepare" in said


@pytest.mark.parametrize(
    ("section", "values"),
    [("tuning", {"mode": "qlora"}), ("optimizer", {"name": "adamw_8bit"})],
)
def test_fsdp2_shards_neither_packed_weights_nor_8_bit_moments(
    reviews_recipe, write_recipe, section, values
):
    reviews_recipe.setdefault(section, {}).update(values)
    reviews_recipe["batch"] |= {"global_batch_size": 16, "micro_batch_size": 4}
    said = refused(
        write_recipe(reviews_recipe),
        *("--processes", 2, "--config", ROOT / "accelerate_configs" / "fsdp2.yaml"),
    )
    assert values.get("mode", values.get("name")) in said


MIXTURE = {
    "model_type": "mixtral",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "num_local_experts": 4,
}


def test_a_step_that_depends_on_contents(reviews_recipe, write_recipe):
    reviews_recipe["model"]["architecture"] = MIXTURE
    error = refused(write_recipe(reviews_recipe))
    assert "the step of models of the type mixtral cannot be planned: " in error
    assert "--dry-run" in error


def test_checkpointing_that_a_model_does_not_have(reviews_recipe, write_recipe):
    reviews_recipe["model"]["architecture"]["model_type"] = "albert"
    reviews_recipe["model"]["gradient_checkpointing"] = True
    error = refused(write_recipe(reviews_recipe))
    assert "model.gradient_checkpointing: transformers has none for models of the type" in error


@pytest.mark.distributed
def test_without_cache_network_and_home(tmp_path):
    (tmp_path / "file").touch()
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("HF_", "TRAINER_", "XDG_"))
    }
    environment |= {
        "HOME": f"{tmp_path}/file/home",
        "PYTHONPATH": str(ROOT),
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "trainer", "plan", "bert-base-sst2", "--gpu", "t4", "--json"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd="/proc")
    assert ended.returncode == 0, ended.stderr
    values = json.loads(ended.stdout)
    assert not values["lengths"]["exact"]
    assert "max_seq_length" in values["lengths"]["note"]
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.slow
@pytest.mark.parametrize("gpu", [None, "t4"])
@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_every_shipped_recipe(name, gpu):
    assert plan(load_recipe(name, ()), gpu=gpu).as_dict()["gpus"]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "cell"), [("1", "296"), ("2", "167"), ("3", "24.0")])
def test_it_gives_the_table_of_70_billion_weights(stage, cell):
    """Of "How far it goes" in tests/benchmarks/README.md: the column of 64 GPUs."""
    page = (ROOT / "tests" / "benchmarks" / "README.md").read_text("utf-8")
    (row,) = [line for line in page.splitlines() if line.startswith(f"| 70B ZeRO-{stage} |")][:1]
    assert row.split("|")[7].strip() == cell
    recipe = parse_recipe(
        {
            "model": {"name_or_path": "meta-llama/Llama-3.1-70B", "initialization": "random"},
            "task": {"name": "causal_lm"},
            "data": {"source": {"files": {"train": "text.txt"}}, "columns": {"text": "text"}},
            "batch": {"global_batch_size": 64, "micro_batch_size": 1, "max_seq_length": 128},
            "schedule": {"steps": 10},
            "precision": "bf16",
        },
        "test",
    )
    config = ROOT / "accelerate_configs" / f"zero{stage}.yaml"
    planned = plan(recipe, gpu="h100", config=config, processes=64, nodes=8)
    update = planned.memory.peaks["optimizer"].allocated
    assert update / 1e9 == pytest.approx(float(cell), rel=0.005)
