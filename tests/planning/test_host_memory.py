"""The memory of a machine as planned, beside what processes of real runs took."""

import json
import subprocess
import sys

import pytest
import torch
from support.launches import launch_environment
from support.paths import ROOT, program

from trainer.checkpoints.disk_space import CheckpointSize, checkpoint_size
from trainer.models.parameters import num_weights, trainable_parameters
from trainer.planning.engine_bytes import engine_memory
from trainer.planning.held_memory import PlannedParameter
from trainer.planning.host_memory import (
    CUDA_BUILD,
    CUDA_LIBRARIES,
    LIBRARIES,
    Model,
    planned_host_memory,
)
from trainer.planning.launches import PlannedLaunch, planned_launch
from trainer.planning.parameters import count
from trainer.recipe.training import Optimizer
from trainer.tasks.recipe import load_recipe, parse_recipe

MIB = 2**20
MODEL = Model(num_weights=1000, largest=50, itemsize=2, stored=2000)
SIZE = CheckpointSize(weights=400, moments=800)


def planned(values, launch=None, offloaded=0, device_bytes=None, **changes):
    recipe = parse_recipe(values | changes, "test")
    launch = launch or PlannedLaunch()
    return planned_host_memory(
        recipe, launch, MODEL, SIZE, offloaded=offloaded, device_bytes=device_bytes
    )


def pretrained(mode):
    return {
        "model": {"name_or_path": "some/model"},
        "tuning": {"mode": mode},
    }


@pytest.mark.parametrize(
    ("changes", "on_gpu", "on_cpu"),
    [
        (pretrained("full"), 4000, 4000),
        (pretrained("lora"), 2000, 2000),
        (pretrained("head_only"), 2000, 2000),
        (pretrained("qlora"), 2 * 50, 2 * 50 + 2000),
        ({"tuning": {"mode": "lora"}}, 4000, 4000),  # random weights are drawn in fp32
        ({"tuning": {"mode": "qlora"}}, 4000 + 100, 4000 + 100 + 2000),
    ],
)
def test_loading(changes, on_gpu, on_cpu, reviews_recipe):
    memory = planned(reviews_recipe, **changes)
    assert (memory.loading, memory.loading_others) == (on_gpu, on_gpu)
    assert planned(reviews_recipe, device_bytes=9, **changes).loading == on_cpu


def test_under_zero3_the_main_process_alone_loads(reviews_recipe):
    launch = PlannedLaunch(engine="zero3", processes=8, nodes=2)
    memory = planned(reviews_recipe, launch, **pretrained("lora"))
    assert (memory.loading, memory.loading_others, memory.processes) == (2000, 0, 4)
    assert memory.machine == 4 * memory.libraries + 4 * 1200  # all of them save
    quantised = planned(reviews_recipe, launch, **pretrained("qlora"))
    assert quantised.loading_others == quantised.loading


@pytest.mark.parametrize(
    ("config", "held"),
    [
        ("zero2-offload", 18 * 100 / 2),  # the figures in the files' comments
        ("zero3-offload", (22 * 100 + 2 * 900) / 2),
        ("zero3", 0),
        ("ddp", 0),
    ],
)
def test_offload(config, held, reviews_recipe):
    """Of 1,000 matrices, of which 100 are trained: so many that one on its way is little."""
    launch = planned_launch(ROOT / "accelerate_configs" / f"{config}.yaml", 2)
    parameters = [
        PlannedParameter(shape=(640, 100), dtype=torch.float32, trainable=trainable)
        for trainable in [True] * 100 + [False] * 900
    ]
    adamw = Optimizer(name="adamw", learning_rate=1e-4)
    host = engine_memory(parameters, launch, "bf16", adamw).host.total
    assert host == pytest.approx(64_000 * held, rel=0.01)
    memory = planned(reviews_recipe, launch, offloaded=host)
    assert memory.training == host
    assert memory.machine >= 2 * (LIBRARIES + CUDA_LIBRARIES + host)


def test_saving_in_the_background_copies_what_a_process_writes(reviews_recipe):
    background = {"checkpoint": {"async": True}}
    launch = PlannedLaunch(engine="ddp", processes=2)
    assert planned(reviews_recipe, launch, **background).saving == 1200 / 2
    assert planned(reviews_recipe, launch).saving == 1200  # at most two files
    on_cpu = planned(reviews_recipe, launch, device_bytes=9, **background)
    assert on_cpu.saving == 2000 + 800 + 1200 / 2
    assert planned(reviews_recipe, launch, device_bytes=9).saving == 2000 + 800


def test_export_copies_weights_on_a_gpu_and_those_with_adapters(reviews_recipe):
    assert planned(reviews_recipe).exporting == 4 * 1000
    assert planned(reviews_recipe, device_bytes=9).exporting == 2000 + 800
    adapters = planned(reviews_recipe, device_bytes=9, tuning={"mode": "lora"})
    assert adapters.exporting == 2000 + 800 + 2 * 1000


def test_the_peak_is_that_of_the_worst_moment(reviews_recipe):
    memory = planned(reviews_recipe, device_bytes=9_000)
    libraries = LIBRARIES + CUDA_BUILD * torch.backends.cuda.is_built()
    assert memory.process == memory.machine == libraries + 9_000
    values = json.loads(json.dumps(memory.as_dict()))
    assert values["process"] == memory.process
    assert values["notes"]


WIDE = {
    "model_type": "llama",
    "hidden_size": 1024,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "intermediate_size": 3072,
    "max_position_embeddings": 64,
}


@pytest.mark.distributed
@pytest.mark.parametrize(
    "change",
    [
        {"tuning": {"mode": "full"}},
        {"tuning": {"mode": "full"}, "checkpoint": {"async": True}},
        {"tuning": {"mode": "lora", "r": 4}},
        None,
    ],
)
def test_real_processes_take_what_was_planned(change, reviews_recipe, write_recipe, tmp_path):
    """The shipped demo, and a Llama of 42 million weights whose activations are small."""
    if change is None:
        recipe, name = load_recipe("demo"), "demo"
        options = ("--set", "data.source.num_rows=200", "--set", "schedule.epochs=1")
        options += ("--set", "checkpoint.verify_export=false")
    else:
        reviews_recipe["model"]["architecture"] = WIDE
        reviews_recipe["batch"] = {"global_batch_size": 2, "max_seq_length": 16}
        reviews_recipe["schedule"] = {"steps": 2}
        reviews_recipe["evaluation"]["baseline"] = False
        reviews_recipe["data"]["source"]["num_rows"] = 20
        reviews_recipe["checkpoint"] = {"verify_export": False} | change.get("checkpoint", {})
        reviews_recipe["tuning"] = change["tuning"]
        recipe = parse_recipe(reviews_recipe, "test")
        name, options = str(write_recipe(reviews_recipe)), ()
    command = (sys.executable, "-m", "trainer", "train", name, "--run-dir", str(tmp_path / "run"))
    printed = subprocess.run(
        program("peak_of", *command, *options),
        env=launch_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    measured = int(printed)

    model = count(recipe).model
    weights = [num_weights(parameter) for parameter in model.parameters()]
    trained = trainable_parameters(model)
    checkpoint = checkpoint_size(trained.values(), recipe.optimizer)
    sizes = Model(
        num_weights=sum(weights),
        largest=max(weights),
        itemsize=4,
        stored=4 * sum(weights),
    )
    held = (
        sizes.stored
        + checkpoint.moments
        + 4 * sum(parameter.numel() for parameter in trained.values())
    )
    memory = planned_host_memory(
        recipe, PlannedLaunch(), sizes, checkpoint, offloaded=0, device_bytes=held
    )
    print(f"{change}: planned {memory.process / MIB:.0f}, measured {measured / MIB:.0f} MiB")
    assert 0.85 * measured < memory.process < 1.15 * measured
