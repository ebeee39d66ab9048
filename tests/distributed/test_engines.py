"""ZeRO and FSDP2 learn what one process learns, and a run resumes under any engine."""

import json
import os
import subprocess
from ctypes.util import find_library
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.launches import (
    Finished,
    assert_same_metrics,
    free_port,
    largest_difference,
    launch_command,
    launch_environment,
    tensors_of,
)
from support.paths import PROGRAMS, ROOT
from support.step_recipes import (
    OPTIMIZERS,
    SETS,
    SHAPE,
    STAGES,
    TASKS,
    classification,
    of_task,
    recipe_of,
)
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig

slow = pytest.mark.slow
SMALL_FILES = PROGRAMS / "small_files.py"
REAL = Path(os.environ.get("TRAINER_TEST_DATA", "/nonexistent"))


def assert_same(one: Finished, other: Finished, tolerance: float = 1e-6) -> None:
    """Compares losses, norms and the weights of the fifth step."""
    assert other.status()["state"] == "done", other.output
    for mine, theirs in zip(one.lines(), other.lines(), strict=True):
        for name in [name for name in mine if name.startswith(("loss", "grad_norm"))]:
            expected = pytest.approx(theirs[name], abs=tolerance, rel=1e-6)
            assert mine[name] == expected, name
    for mine, theirs in zip(one.lines("validation"), other.lines("validation"), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=tolerance)
    assert largest_difference(one.weights(5), other.weights(5)) < tolerance


@pytest.mark.parametrize(
    ("config", "optimizer"),
    [
        ("cpu-2-zero2", "adamw"),
        ("cpu-2-zero3", "sgd"),
        *(
            pytest.param(config, optimizer, marks=slow)
            for config in (*STAGES, *SETS)
            for optimizer in OPTIMIZERS
        ),
    ],
)
def test_five_clipped_steps_are_those_of_one_process(
    config, optimizer, uneven_rows, write_recipe, train_once, train_on_two_ranks, tmp_path
):
    recipe = write_recipe(classification(uneven_rows, optimizer))
    whole = train_once(recipe)
    assert min(line["grad_norm"] for line in whole.lines()) > 0.02, "clipping must be active"
    assert_same(whole, train_on_two_ranks(recipe, tmp_path / config, config=config))


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("task", "config"),
    [
        ("instructions", "cpu-2-zero3"),  # which also generates answers
        *(pytest.param(task, config, marks=slow) for task in TASKS for config in (*STAGES, *SETS)),
    ],
)
def test_every_task(task, config, write_recipe, train_once, train_on_two_ranks, tmp_path):
    file = write_recipe(of_task(task))
    whole = train_once(file)
    sharded = train_on_two_ranks(file, tmp_path / config, config=config)
    assert_same(whole, sharded)
    assert_same_metrics(whole, sharded)


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("mode", "config", "checkpointing"),
    [
        ("lora", "cpu-2-zero2", True),
        ("qlora", "cpu-2-zero3", False),
        *(
            pytest.param(mode, config, checkpointing, marks=slow)
            for mode in ("head_only", "lora", "qlora", "int8_lora")
            for config in ("cpu-2", *STAGES, "fsdp2")
            for checkpointing in (True, False)
            if config != "fsdp2" or mode in ("head_only", "lora")
        ),
    ],
)
def test_tuning_modes(
    mode, config, checkpointing, uneven_rows, write_recipe, train_once, train_on_two_ranks, tmp_path
):
    """Adapters, heads and the logits of the exported model are those of one process."""
    recipe = classification(uneven_rows) | {"tuning": {"mode": mode, "r": 4, "dropout": 0.0}}
    recipe["model"]["gradient_checkpointing"] = checkpointing
    file = write_recipe(recipe)
    whole = train_once(file)
    sharded = train_on_two_ranks(file, tmp_path / config, config=config)
    assert_same(whole, sharded, tolerance=1e-5)
    logits = [exported_logits(run) for run in (whole, sharded)]
    assert torch.allclose(*logits, atol=1e-5)


@pytest.mark.distributed
@pytest.mark.parametrize("config", ["cpu-2", "zero2", "zero3", "fsdp2"])
def test_what_learned_nothing_is_known_under_every_engine(
    config, uneven_rows, write_recipe, train_once, train_on_two_ranks, tmp_path
):
    """After one step of LoRA, A had no gradient yet: it is a product with B, which begins at 0."""
    recipe = classification(uneven_rows) | {"tuning": {"mode": "lora", "r": 4, "dropout": 0.0}}
    recipe["schedule"] = {"steps": 1}
    file = write_recipe(recipe)
    whole, sharded = train_once(file), train_on_two_ranks(file, tmp_path / config, config=config)
    learned = whole.results()["learned"]
    assert learned["without_gradient"]
    assert all(".lora_A." in name for name in learned["without_gradient"])
    assert sharded.results()["learned"] == learned
    assert sharded.results()["parameters"] == whole.results()["parameters"]
    assert sharded.results()["data"] == whole.results()["data"]


def exported_logits(run: Finished) -> torch.Tensor:
    folder = run.directory / "model"
    return logits_of(AutoModelForSequenceClassification.from_pretrained(folder).eval(), run)


def logits_of(model: Any, run: Finished) -> torch.Tensor:
    tokenizer = AutoTokenizer.from_pretrained(run.directory / "model")
    batch = tokenizer(["a film", "not very bright"], padding=True)
    with torch.no_grad():
        return model(**{name: torch.tensor(value) for name, value in batch.items()}).logits


@pytest.mark.distributed
@pytest.mark.parametrize("config", ["zero3", *(pytest.param(one, marks=slow) for one in SETS)])
def test_pretrained_weights_are_those_of_one_process(
    config, uneven_rows, write_recipe, train_here, train_once, train_on_two_ranks, tmp_path
):
    """Rank 1 gets them from rank 0, and so the random head over a frozen backbone."""
    base = train_here(write_recipe(classification(uneven_rows)), tmp_path / "base")
    recipe = classification(uneven_rows)
    recipe["model"] = {"name_or_path": str(base.directory / "model")}
    recipe["task"]["labels"] = ["never", "yes", "no"]
    recipe["tuning"] = {"mode": "lora", "r": 4, "dropout": 0.0}
    file = write_recipe(recipe)
    whole = train_once(file)
    sharded = train_on_two_ranks(file, tmp_path / config, config=config)
    assert_same(whole, sharded)
    assert sharded.results()["baseline"] == whole.results()["baseline"]
    plain = AutoModelForSequenceClassification.from_pretrained(base.directory / "model")
    adapted = PeftModel.from_pretrained(plain, sharded.directory / "adapter").eval()
    assert torch.allclose(logits_of(adapted, sharded), exported_logits(sharded), atol=1e-5)


@pytest.mark.distributed
def test_weights_that_cannot_be_loaded_end_all_ranks(write_recipe, train_on_two_ranks, tmp_path):
    recipe = recipe_of("bert", {"train": "wordpiece", "vocab_size": 200}, "sgd")
    recipe["batch"]["micro_batch_size"] = 4
    recipe["task"] = {"name": "classification"}
    recipe["data"] = {"source": {"builtin": "reviews", "num_rows": 200}}
    folder = tmp_path / "without-weights"
    BertConfig(vocab_size=200, **SHAPE).save_pretrained(folder)
    recipe["model"] = {"name_or_path": str(folder), "tokenizer": recipe["model"]["tokenizer"]}
    done = train_on_two_ranks(write_recipe(recipe), tmp_path / "run", config="zero3")
    assert done.status()["exit_code"] == 2
    assert "model.name_or_path" in done.status()["message"]
    assert done.output.count("trainer: ") == 1


@pytest.mark.distributed
@slow
def test_a_head_that_is_stored_untied_is_loaded_by_every_rank(
    write_recipe, train_here, train_once, train_on_two_ranks, tmp_path
):
    """Every rank also knows its end-of-text tokens, which are stored next to the weights only."""
    recipe = of_task("instructions")
    base = train_here(write_recipe(recipe), tmp_path / "base").directory / "model"
    weights = load_file(base / "model.safetensors")
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] + 0.01
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    recipe["model"] = {"name_or_path": str(base)}
    file = write_recipe(recipe)
    whole = train_once(file)
    assert_same(whole, train_on_two_ranks(file, tmp_path / "two", config="zero3"))


@pytest.mark.distributed
@pytest.mark.parametrize("config", ["fsdp2", *(pytest.param(one, marks=slow) for one in STAGES)])
def test_the_best_step_is_exported(
    config, uneven_rows, write_recipe, train_once, train_on_two_ranks, tmp_path
):
    """The last steps make the model worse; those of an earlier step are measured and exported."""
    recipe = classification(uneven_rows)
    recipe["optimizer"] |= {"name": "sgd", "learning_rate": 20.0, "max_grad_norm": None}
    recipe["evaluation"] |= {"every": 1, "metric": "loss", "mode": "min"}
    recipe["data"]["split"] = {"validation": {"ratio": 0.2, "seed": 1}, "test": {"ratio": 0.1}}
    file = write_recipe(recipe)
    whole = train_once(file)
    sharded = train_on_two_ranks(file, tmp_path / config, config=config)
    best, other = whole.results()["best"], sharded.results()["best"]
    assert best["step"] == other["step"] < 5
    assert other["metrics"]["test"]["loss"] == pytest.approx(best["metrics"]["test"]["loss"])
    assert torch.allclose(exported_logits(whole), exported_logits(sharded), rtol=1e-4)


@pytest.mark.parametrize(
    ("saved", "resumed"),
    [
        ("zero3", None),
        *(
            pytest.param(saved, resumed, marks=slow)
            for saved in (None, "cpu-2", *STAGES, *SETS)
            for resumed in (None, "cpu-2", *STAGES, *SETS)
            if (saved, resumed) != ("zero3", None)
        ),
    ],
)
def test_a_run_resumes_under_another_engine(
    saved, resumed, uneven_rows, write_recipe, train_here, train_once, train_on_two_ranks, tmp_path
):
    """Two steps under one engine and three under another equal five in one process."""

    def train(directory: Path, config: str | None, **options: Any) -> Finished:
        if config is None:
            return train_here(recipe, directory, **options)
        return train_on_two_ranks(recipe, directory, config=config, **options)

    recipe = write_recipe(classification(uneven_rows))
    whole = train_once(recipe)
    first = train(tmp_path / "first", saved)
    checkpoint = first.directory / "checkpoints" / "step-00000002"
    second = train(tmp_path / "second", resumed, resume=str(checkpoint))
    assert second.status()["state"] == "done", second.output
    assert [line["step"] for line in second.lines()] == [3, 4, 5]
    before, now = sharding_of(saved), sharding_of(resumed)
    if resumed is not None and before != now:
        assert f"sharding was {before} and is now {now}" in second.output
    for mine, theirs in zip(whole.lines()[2:], second.lines(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
    assert largest_difference(whole.weights(5), second.weights(5)) < 1e-6


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("saved", "resumed"),
    [
        ("zero3", "cpu-2"),
        *(
            pytest.param(saved, resumed, marks=slow)
            for saved in ("cpu-2", *STAGES, "zero3-offload")
            for resumed in (None, "cpu-2", *STAGES, "zero3-offload")
            if (saved, resumed) != ("zero3", "cpu-2")
        ),
    ],
)
def test_a_checkpoint_of_many_files_is_read_by_every_rank(
    saved, resumed, uneven_rows, write_recipe, train_here, train_on_two_ranks, tmp_path
):
    """With LoRA, whose checkpoints hold none of the frozen weights."""
    recipe = classification(uneven_rows) | {"tuning": {"mode": "lora", "r": 64, "dropout": 0.0}}
    file = write_recipe(recipe)
    directory = tmp_path / "first"
    first = train_on_two_ranks(file, directory, config=saved, program=[str(SMALL_FILES)])
    assert first.status()["state"] == "done", first.output
    checkpoint = directory / "checkpoints" / "step-00000002"
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 2
    assert len(list(checkpoint.glob("optimizer-*.safetensors"))) > 4
    assert not any("base_layer" in name for name in tensors_of(checkpoint))
    options = {"resume": str(checkpoint)}
    if resumed is None:
        second = train_here(file, tmp_path / "second", **options)
    else:
        second = train_on_two_ranks(file, tmp_path / "second", config=resumed, **options)
    assert second.status()["state"] == "done", second.output
    for mine, theirs in zip(first.lines()[2:], second.lines(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=1e-6)
    assert largest_difference(first.weights(5), second.weights(5)) < 1e-6


def sharding_of(config: str | None) -> str:
    if config in (None, "cpu-2"):
        return "nothing"
    return config.upper() if config == "fsdp2" else f"ZeRO-{config[4]}"


@pytest.mark.distributed
@pytest.mark.parametrize(
    "config", ["zero3", *(pytest.param(one, marks=slow) for one in ("zero1", "zero2", *SETS))]
)
def test_resumed_under_one_engine_is_exact(
    config, uneven_rows, write_recipe, train_on_two_ranks, tmp_path
):
    """With dropout, whose masks are those of the uninterrupted run."""
    recipe = classification(uneven_rows)
    del recipe["model"]["architecture"]["hidden_dropout_prob"]
    file = write_recipe(recipe)
    whole = train_on_two_ranks(file, tmp_path / "whole", config=config)
    checkpoint = whole.directory / "checkpoints" / "step-00000002"
    again = train_on_two_ranks(file, tmp_path / "again", config=config, resume=str(checkpoint))
    assert again.status()["state"] == "done", again.output
    assert largest_difference(whole.weights(5), again.weights(5)) == 0
    assert [line["loss"] for line in whole.lines()[2:]] == [line["loss"] for line in again.lines()]


@pytest.mark.distributed
@pytest.mark.parametrize("config", [*STAGES, "fsdp2"])
@slow
def test_losses_in_bf16_are_near_those_of_one_process(
    config, uneven_rows, write_recipe, train_here, train_on_two_ranks, tmp_path
):
    recipe = write_recipe(classification(uneven_rows))
    whole = train_here(recipe, tmp_path / "one", "precision=fp32")
    sharded = train_on_two_ranks(recipe, tmp_path / config, "precision=bf16", config=config)
    assert sharded.status()["state"] == "done", sharded.output
    for mine, theirs in zip(whole.lines(), sharded.lines(), strict=True):
        assert mine["loss"] == pytest.approx(theirs["loss"], abs=5e-3)


@pytest.mark.distributed
@pytest.mark.parametrize("config", ["zero2", "zero3"])
@slow
def test_fp16_resumes_with_its_loss_scale(
    config, uneven_rows, write_recipe, train_on_two_ranks, tmp_path
):
    """The first steps overflow at the initial scale; they are skipped and counted."""
    from deepspeed.accelerator import get_accelerator

    if not get_accelerator().is_fp16_supported():
        pytest.skip("this processor does not compute in fp16")
    recipe = classification(uneven_rows)
    recipe["model"]["architecture"]["initializer_range"] = 0.3  # with a gradient norm of 10
    file = write_recipe(recipe)
    whole = train_on_two_ranks(file, tmp_path / "whole", "precision=fp16", config=config)
    assert whole.status()["state"] == "done", whole.output
    skipped = whole.results()["skipped_steps"]
    assert 0 < skipped < 5
    assert [line["grad_norm"] for line in whole.lines()].count(None) == skipped
    checkpoint = whole.directory / "checkpoints" / "step-00000002"
    assert kept_loss_scale(checkpoint)["scale"] < 2**16
    again = train_on_two_ranks(
        file, tmp_path / "again", "precision=fp16", config=config, resume=str(checkpoint)
    )
    assert [line["loss"] for line in whole.lines()[2:]] == [line["loss"] for line in again.lines()]
    last = Path("checkpoints", "step-00000005")
    assert kept_loss_scale(again.directory / last) == kept_loss_scale(whole.directory / last)


def kept_loss_scale(checkpoint: Path) -> dict[str, float]:
    return json.loads((checkpoint / "state.json").read_text())["loss_scale"]


@pytest.mark.distributed
def test_all_ranks_print_a_refusal_once(uneven_rows, write_recipe, train_on_two_ranks, tmp_path):
    """tests/engines has the refusals of each engine; this is one in a real launch."""
    settings = json.loads((ROOT / "ds_configs" / "zero2.json").read_text())
    file = tmp_path / "changed.json"
    file.write_text(json.dumps(settings | {"gradient_accumulation_steps": 2}))
    done = train_on_two_ranks(
        write_recipe(classification(uneven_rows)),
        tmp_path / "run",
        config="zero2",
        options=("--deepspeed_config_file", str(file)),
    )
    assert done.code != 0
    assert done.status()["exit_code"] == 2
    assert "gradient_accumulation_steps is 2" in done.status()["message"]
    assert done.output.count("trainer: ") == 1
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.distributed
@slow
@pytest.mark.skipif(find_library("aio") is None, reason="libaio is not installed")
def test_shards_on_a_disk_learn_the_same(
    uneven_rows, write_recipe, train_once, train_on_two_ranks, tmp_path, monkeypatch
):
    disk = tmp_path / "disk"
    disk.mkdir()
    monkeypatch.setenv("TRAINER_NVME_PATH", str(disk))
    large = classification(uneven_rows)  # each shard has a megabyte; smaller ones stay in memory
    large["model"]["architecture"] |= {"hidden_size": 240, "intermediate_size": 960}
    recipe = write_recipe(large)
    whole = train_once(recipe)
    swapped = train_on_two_ranks(recipe, tmp_path / "swapped", config="zero3-nvme")
    assert_same(whole, swapped)
    assert any(disk.rglob("*.swp"))
    checkpoint = str(swapped.directory / "checkpoints" / "step-00000002")
    again = train_on_two_ranks(recipe, tmp_path / "no", config="zero3-nvme", resume=checkpoint)
    assert again.status()["exit_code"] == 2
    assert "resume under zero3-offload.yaml" in again.status()["message"]
    again = train_on_two_ranks(recipe, tmp_path / "on", config="zero3-offload", resume=checkpoint)
    assert largest_difference(swapped.weights(5), again.weights(5)) < 1e-6


@pytest.mark.distributed
@slow
def test_a_second_copy_of_the_weights_learns_the_same(
    uneven_rows, write_recipe, train_once, train_on_two_ranks, tmp_path
):
    """ZeRO++'s hpZ: a second copy of the weights on the GPUs of each machine."""
    settings = json.loads((ROOT / "ds_configs" / "zero3.json").read_text())
    settings["zero_optimization"]["zero_hpz_partition_size"] = 2
    file = tmp_path / "hpz.json"
    file.write_text(json.dumps(settings))
    recipe = write_recipe(classification(uneven_rows))
    whole = train_once(recipe)
    place = ("--num_processes", "4", "--deepspeed_config_file", str(file))
    four = train_on_two_ranks(recipe, tmp_path / "four", config="zero3", options=place)
    assert_same(whole, four)


@pytest.mark.distributed
@slow
def test_replicated_shards_learn_the_same(
    uneven_rows, write_recipe, train_once, train_on_two_ranks, tmp_path
):
    """Four ranks: two replicas of two shards."""
    recipe = write_recipe(classification(uneven_rows))
    whole = train_once(recipe)
    place = ("--num_machines", "1", "--num_processes", "4", "--main_process_port", "0")
    four = train_on_two_ranks(recipe, tmp_path / "four", config="fsdp2-hybrid", options=place)
    assert four.results()["processes"] == 4
    assert_same(whole, four)


@pytest.mark.distributed
@slow
def test_two_machines_are_one_world(uneven_rows, write_recipe, train_here, tmp_path):
    """Two launchers with one rank each, as on two nodes, under ZeRO-3."""
    recipe = write_recipe(classification(uneven_rows))
    assert_same(train_here(recipe, tmp_path / "one"), on_two_machines(recipe, tmp_path / "two"))


@pytest.mark.distributed
@slow
@pytest.mark.skipif(not REAL.is_dir(), reason="TRAINER_TEST_DATA names no folder with real data")
def test_two_machines_train_on_real_data(write_recipe, train_here, tmp_path):
    """A pretrained Llama, whose weights machine 1 gets over the network."""
    recipe = classification(REAL / "sst2" / "train.tsv")
    recipe["model"] = {"name_or_path": str(REAL / "models" / "stories260K")}
    recipe["task"] = {"name": "classification", "labels": ["negative", "positive"]}
    recipe["data"] |= {"columns": {"text": "sentence", "label": "label"}, "max_rows": 1000}
    recipe["schedule"]["steps"] = 5
    file = write_recipe(recipe)
    assert_same(train_here(file, tmp_path / "one"), on_two_machines(file, tmp_path / "two"))


def on_two_machines(recipe: Path, directory: Path) -> Finished:
    place = ("--num_machines", "2", "--num_processes", "2")
    place += ("--main_process_port", str(free_port()))
    machines = [
        subprocess.Popen(
            launch_command(
                *("train", str(recipe), "--run-dir", str(directory)),
                config="zero3-multinode",
                options=(*place, "--main_process_ip", "127.0.0.1", "--machine_rank", rank),
            ),
            cwd=ROOT,
            env=launch_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    outputs = [machine.communicate(timeout=300)[0] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], outputs
    return Finished(directory, 0, outputs[0])
