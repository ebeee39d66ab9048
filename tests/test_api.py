"""The Python interface: it returns or raises, resumes, and leaves the process unchanged."""

import json
import logging
import os
import random
import re
import signal
import subprocess
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
import transformers
from accelerate.state import AcceleratorState, PartialState
from support.launches import free_port, launch_environment, tensors_of
from support.paths import ROOT, program

import trainer
from trainer.process import stop_request
from trainer.tracking.progress import Update

STEPS = {
    "schedule": {"steps": 4},
    "evaluation": {"every": 2},
    "checkpoint": {"every_steps": 2, "verify_export": False},
}
PUBLIC = """
CheckpointError ConfigError DataError DivergedError FileError HubError LaunchError OutOfMemoryError
Plan Recipe Result RunDirectoryError TrainerError __version__ evaluate load load_recipe plan push
train write_report
"""


def train(recipe: Any, directory: Path, *, progress: Any = None, **given: Any) -> trainer.Result:
    return trainer.train(recipe, STEPS, run_dir=directory, progress=progress, **given)


@pytest.fixture
def recipe(reviews_recipe, write_recipe) -> Path:
    return write_recipe(reviews_recipe)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    generator = random.Random(0)
    words = "a film plot was not very quite dull bright slow".split()
    return [
        {"text": " ".join([*generator.choices(words, k=5), word]), "label": label}
        for word, label in [("good", "positive"), ("bad", "negative")] * 40
    ]


def trainer_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "trainer"]


def switches() -> dict[str, Any]:
    """Returns everything that a run could leave changed in its process."""
    return {
        "environment": dict(os.environ),
        "filters": list(warnings.filters),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "generator": torch.get_rng_state().tolist(),
        "verbosity": transformers.logging.get_verbosity(),
        "bars": transformers.logging.is_progress_bar_enabled(),
        "datasets' bars": datasets.are_progress_bars_disabled(),
        "loggers": [logging.getLogger(x).level for x in ("bitsandbytes", "torch.distributed")],
        "accelerate": (dict(PartialState._shared_state), dict(AcceleratorState._shared_state)),
        "group": torch.distributed.is_initialized(),
        "started": trainer_threads(),
    }


def test_the_public_names_are_frozen_and_import_nothing_heavy():
    assert sorted(trainer.__all__) == PUBLIC.split()
    assert all(getattr(trainer, name) is not None for name in trainer.__all__)
    assert (Path(trainer.__file__).parent / "py.typed").is_file()
    with pytest.raises(AttributeError, match="no attribute 'fit'"):
        _ = trainer.fit
    done = subprocess.run(program("heavy_imports", "package"), capture_output=True, text=True)
    assert (done.stdout.strip(), done.stderr) == ("", "")


def test_a_run_returns_what_it_wrote_and_prints_nothing(recipe, tmp_path, capfd):
    updates: list[Update] = []
    result = train(recipe, tmp_path / "run", progress=updates.append)
    assert capfd.readouterr() == ("", "")
    assert (result.state, result.step, result.run_dir) == ("done", 4, tmp_path / "run")
    assert result.metrics.keys() == {"validation", "test"}
    assert result.final["test"]["loss"] != result.baseline["test"]["loss"]
    assert any("above" in warning for warning in result.warnings)
    steps = [update.step for update in updates if update.message is None and not update.ended]
    assert steps == [1, 2, 3, 4]
    assert any(
        "4 steps of 16 = 1 process x micro-batch " in (update.message or "") for update in updates
    )
    assert updates[-1].message is not None
    assert "results.json" in updates[-1].message

    assert trainer.load(tmp_path / "run") == result
    assert train(recipe, tmp_path / "run") == result  # it is finished
    metrics = trainer.evaluate(tmp_path / "run", split="test")
    assert metrics["step"] == result.best_step
    assert metrics["accuracy"] == result.metrics["test"]["accuracy"]
    assert trainer.evaluate(tmp_path / "run", checkpoint=4)["loss"] == pytest.approx(
        result.final["validation"]["loss"], abs=1e-6
    )
    model, tokenizer = result.load()
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model(**tokenizer("a fine film", return_tensors="pt")).logits.shape == (1, 2)


def test_other_rows_can_be_evaluated(recipe, rows, tmp_path):
    train(recipe, tmp_path / "run", data={"train": rows})
    given = trainer.evaluate(tmp_path / "run", data=rows)
    assert (given["split"], given["per_class"]["positive"]["support"]) == ("given", 40)
    as_dataset = trainer.evaluate(tmp_path / "run", data=datasets.Dataset.from_list(rows))
    assert as_dataset["loss"] == given["loss"]
    described = given["other_data"]
    assert (described["source"], described["rows"]) == ("list", 80)
    assert described["digest"] == as_dataset["other_data"]["digest"]
    assert any("given rows also occur in train" in note for note in described["notes"])
    with pytest.raises(trainer.DataError) as caught:
        trainer.evaluate(tmp_path / "run", data=[{"text": "no label"}])
    assert "label" in str(caught.value)
    with pytest.raises(trainer.ConfigError, match="the columns of other data"):
        trainer.evaluate(tmp_path / "run", overrides={"data.columns.text": "body"})


def test_precisions_and_engines_follow_each_other_in_one_process(recipe, tmp_path, monkeypatch):
    """fp32, bf16, bf16 under DeepSpeed, and fp32 again, which gives the first weights again."""
    of_precision = {name: recipe.with_name(f"{name}.yaml") for name in ("fp32", "bf16")}
    for name, file in of_precision.items():
        file.write_text(recipe.read_text().replace("precision: fp32", f"precision: {name}"))
    train(of_precision["fp32"], tmp_path / "first")
    train(of_precision["bf16"], tmp_path / "second")
    variables = {
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2",
        "WORLD_SIZE": "1",
        "RANK": "0",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    with monkeypatch.context() as launch:
        for name, value in variables.items():
            launch.setenv(name, value)
        train(of_precision["bf16"], tmp_path / "third")
    train(of_precision["fp32"], tmp_path / "fourth")
    runs = [tmp_path / name for name in ("first", "second", "third", "fourth")]
    results = [json.loads((run / "results.json").read_text()) for run in runs]
    assert [each["precision"] for each in results] == ["fp32", "bf16", "bf16", "fp32"]
    assert "bf16" in (runs[2] / "report.md").read_text()
    weights = [tensors_of(run / "checkpoints" / "step-00000004") for run in runs]
    first, second, _, fourth = weights
    assert all(torch.equal(first[name], fourth[name]) for name in first)
    assert not all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("fails", [False, True])
def test_a_run_leaves_no_switch_of_the_process_changed(fails, recipe, tmp_path):
    torch.manual_seed(5)
    trainer.load_recipe("demo")
    before = switches()
    overrides = {**STEPS, "deterministic": True}
    overrides |= {"data.source": {"files": {"train": "absent.tsv"}}} if fails else {}
    try:
        trainer.train(recipe, overrides, run_dir=tmp_path / "run", progress=None)
    except trainer.DataError:
        assert fails
    else:
        assert not fails
        trainer.evaluate(tmp_path / "run")
    assert switches() == before


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ({"optimizer.learning_rate": "fast"}, "optimizer.learning_rate"),
        ({"optimizer.learning_rte": 1e-3}, "optimizer.learning_rte"),
        ({"seed.of": 1}, "seed.of"),
    ],
)
def test_an_invalid_recipe_is_refused_before_anything_is_written(overrides, key, recipe, tmp_path):
    with pytest.raises(trainer.ConfigError) as caught:
        trainer.train(recipe, overrides, run_dir=tmp_path / "run", progress=None)
    assert key in str(caught.value)
    with pytest.raises(trainer.RunDirectoryError):
        trainer.load(tmp_path / "run")


def test_an_error_inside_a_run_is_raised_and_kept_in_its_status(recipe, tmp_path):
    with pytest.raises(trainer.DataError):
        trainer.train(
            recipe, {"data.columns.text": "words"}, run_dir=tmp_path / "run", progress=None
        )
    result = trainer.load(tmp_path / "run")
    assert (result.state, result.model_dir) == ("failed", None)
    assert "words" in result.message
    with pytest.raises(trainer.CheckpointError) as caught:
        result.load()
    assert caught.value.value == "failed"


def interrupt_after(step: int) -> Any:
    """Returns a progress callable that sends the main thread SIGINT, as Ctrl-C does.

    Step 0 is the first message, which comes before the first evaluation.
    """
    seen: list[Update] = []

    def interrupt(update: Update) -> None:
        if update.step == step and not seen and (step == 0 or update.message is None):
            seen.append(update)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            time.sleep(0.5)  # while the main thread reacts

    return interrupt


def test_an_interrupted_run_saves_and_resumes_to_the_same_weights(recipe, tmp_path):
    train(recipe, tmp_path / "whole")
    stopped = train(recipe, tmp_path / "run", progress=interrupt_after(1))
    assert stopped.state == "stopped"
    assert 1 <= stopped.step < 4
    saved = tmp_path / "run" / "checkpoints" / f"step-{stopped.step:08d}"
    assert saved.is_dir()
    assert stopped.model_dir is None
    assert trainer.load(tmp_path / "run") == stopped
    assert train(recipe, tmp_path / "run").state == "done"
    whole, resumed = (
        tensors_of(tmp_path / name / "checkpoints" / "step-00000004") for name in ("whole", "run")
    )
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_an_interrupt_before_the_first_step_ends_the_run_at_once(recipe, tmp_path):
    result = train(recipe, tmp_path / "run", progress=interrupt_after(0))
    assert (result.state, result.step) == ("stopped", 0)
    assert result.message.startswith("interrupted; the same command")
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert trainer_threads() == []


def test_a_time_limit_stops_a_run(recipe, tmp_path, monkeypatch):
    """The hour is over at the second step, which the run notices at the next boundary."""

    def late(update: Update) -> None:
        if update.step == 2:
            monkeypatch.setattr(stop_request, "MARGIN_SECONDS", 3600)

    long = {"schedule.epochs": 100_000}
    stopped = trainer.train(recipe, long, run_dir=tmp_path / "run", time_limit=3600, progress=late)
    assert (stopped.state, stopped.step) == ("stopped", 3)
    assert (tmp_path / "run" / "checkpoints" / "step-00000003").is_dir()
    with pytest.raises(trainer.ConfigError):
        trainer.train(recipe, run_dir=tmp_path / "other", time_limit="soon", progress=None)


def test_rows_can_be_given(recipe, rows, tmp_path):
    listed = train(recipe, tmp_path / "list", data={"train": rows, "test": rows[:20]})
    assert listed.metrics.keys() == {"validation", "test"}
    dataset = datasets.Dataset.from_list(rows)
    again = train(recipe, tmp_path / "list", data={"train": dataset, "test": rows[:20]})
    assert again == listed  # the same rows: the run is finished
    with pytest.raises(trainer.RunDirectoryError) as caught:
        train(recipe, tmp_path / "list", data={"train": rows[:60], "test": rows[:20]})
    assert "data.source.files.train" in str(caught.value)
    metrics = trainer.evaluate(tmp_path / "list", split="test")  # the rows are kept
    assert metrics["loss"] == pytest.approx(listed.metrics["test"]["loss"], abs=1e-6)


def test_a_stopped_run_resumes_with_the_rows_it_was_given(recipe, rows, tmp_path):
    stopped = train(recipe, tmp_path / "run", data={"train": rows}, progress=interrupt_after(1))
    assert stopped.state == "stopped"
    assert train(recipe, tmp_path / "run", data={"train": rows}).state == "done"


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"test": [{"text": "a"}]}, "data"),
        ({"train": []}, "data.train"),
        ({"train": "rows.tsv"}, "data.train"),
        ({"train": [{"text": "a"}, {"text": 1}]}, "data.train"),
    ],
)
def test_invalid_rows_are_refused(data, key, recipe, tmp_path):
    with pytest.raises(trainer.DataError) as caught:
        train(recipe, tmp_path / "run", data=data)
    assert caught.value.key == key


@pytest.fixture(scope="module")
def model() -> transformers.PreTrainedModel:
    torch.manual_seed(3)
    return transformers.BertModel(
        transformers.BertConfig(
            vocab_size=400,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    )


@pytest.mark.parametrize("mode", ["full", "head_only", "lora"])
def test_a_model_can_be_given(mode, model, recipe, tmp_path):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    overrides = {**STEPS, "tuning.mode": mode}
    result = trainer.train(recipe, overrides, run_dir=tmp_path / "run", model=model, progress=None)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    trained, _ = result.load()
    name = "encoder.layer.0.output.dense.weight"
    moved = (trained.bert.state_dict()[name] - before[name]).abs().max().item()
    assert (moved > 0) == (mode != "head_only")
    assert moved < 0.1


def test_a_run_of_a_given_model_resumes_with_that_model_only(model, recipe, tmp_path):
    train(recipe, tmp_path / "run", model=model, progress=interrupt_after(1))
    other = transformers.BertModel(model.config)
    with pytest.raises(trainer.RunDirectoryError) as caught:
        train(recipe, tmp_path / "run", model=other)
    assert "model.name_or_path" in str(caught.value)
    assert train(recipe, tmp_path / "run", model=model).state == "done"


@pytest.mark.parametrize(
    ("overrides", "given", "key"),
    [
        ({"tuning.mode": "qlora"}, None, "tuning.mode"),
        ({}, torch.nn.Linear(2, 2), "model"),
    ],
)
def test_a_model_that_cannot_be_used_is_refused(overrides, given, key, model, recipe, tmp_path):
    with pytest.raises(trainer.ConfigError) as caught:
        trainer.train(
            recipe, overrides, run_dir=tmp_path / "run", model=given or model, progress=None
        )
    assert caught.value.key == key


def test_a_recipe_object_needs_a_run_directory():
    with pytest.raises(trainer.ConfigError) as caught:
        trainer.train(trainer.load_recipe("demo"))
    assert caught.value.key == "run_dir"


def test_a_recipe_object_trains_as_its_file_does(recipe, tmp_path):
    loaded = trainer.load_recipe(recipe, {"optimizer.learning_rate": 2e-3})
    by_object = trainer.train(loaded, STEPS, run_dir=tmp_path / "object", progress=None)
    by_name = trainer.train(
        recipe,
        {"optimizer.learning_rate": 2e-3, **STEPS},
        run_dir=tmp_path / "name",
        progress=None,
    )
    for split, metrics in by_object.metrics.items():
        assert metrics["loss"] == by_name.metrics[split]["loss"]
    configs = [(tmp_path / name / "config.yaml").read_text() for name in ("object", "name")]
    assert configs[0] == configs[1]


def test_the_table_of_a_result_escapes_text_from_data(recipe, rows, tmp_path):
    name = "<b>run"
    labels = {"positive": "<i>yes", "negative": "no & no"}
    hostile = [{**row, "label": labels[row["label"]]} for row in rows]
    result = trainer.train(
        recipe,
        {**STEPS, "task.labels": None},
        run_dir=tmp_path / name,
        data={"train": hostile},
        progress=None,
    )
    page = result._repr_html_()
    assert "<b>run" not in page
    assert "&lt;b&gt;run" in page
    assert "<i>yes" not in page
    assert "<bdi>accuracy</bdi>" in page
    assert "report.html" in page
    (tmp_path / result.run_dir / "results.json").unlink()
    assert "<td>accuracy</td>" in result._repr_html_(), "what the result itself holds"


def test_ranks_of_a_notebook_train_together(recipe, tmp_path):
    """Real gloo ranks, forked from a process that has already trained."""
    done = subprocess.run(
        program("notebook_ranks", recipe, tmp_path, free_port()),
        cwd=ROOT,
        env=launch_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    # Two ranks may print on one line.
    ranks = sorted(re.findall(r"rank \d of 2: done [0-9.e-]+", done.stdout))
    result = trainer.load(tmp_path / "two")
    loss = result.metrics["test"]["loss"]
    assert ranks == [f"rank {rank} of 2: done {loss!r}" for rank in (0, 1)]
    alone = trainer.load(tmp_path / "alone").metrics["test"]["loss"]
    assert loss == pytest.approx(alone, abs=1e-4)
