"""The facts of a run in results.json: its data, its parameters, what learned nothing, sessions."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.command_line import run as command
from torch import nn

import trainer
from trainer.optim import build_optimizer
from trainer.process.sessions import begin_session, recorded_sessions, write_environment
from trainer.recipe.training import Optimizer
from trainer.report.learned import folded, without_gradient, zero_adapters

TEXTS = ["good day", "bad day", "a good film", "a bad film", "good old times", "bad old times"]


def rows(texts: list[str]) -> list[dict[str, Any]]:
    return [{"text": text, "label": "bad" if "bad" in text.lower() else "good"} for text in texts]


def train(recipe: dict[str, Any], directory: Path, **overrides: Any) -> dict[str, Any]:
    """Trains on six rows that validation and test partly repeat; returns results.json."""
    recipe["task"] = {"name": "classification"}
    data = {
        "train": rows(TEXTS * 2),
        "validation": rows(["good day", "Bad  DAY!", "good night", "bad " * 40]),
        "test": rows(TEXTS * 2),
    }
    trainer.train(trainer.Recipe(**recipe), overrides, run_dir=directory, data=data, progress=None)
    return json.loads((directory / "results.json").read_text())


@pytest.fixture
def recipe(reviews_recipe: dict[str, Any]) -> dict[str, Any]:
    reviews_recipe["model"]["tokenizer"]["vocab_size"] = 64
    reviews_recipe["model"]["architecture"]["num_hidden_layers"] = 2
    reviews_recipe["batch"] = {"global_batch_size": 4, "max_seq_length": 16}
    reviews_recipe["schedule"] = {"epochs": 1}
    return reviews_recipe


def test_what_a_run_says_of_its_data(recipe, tmp_path):
    results = train(recipe, tmp_path / "run")
    assert results["version"] == 2
    data = results["data"]
    assert data.keys() == {"train", "validation", "test"}
    assert (data["train"]["rows"], data["train"]["examples"]) == (12, 12)
    found = data["validation"]
    assert (found["num_truncated"], found["longest"], found["num_skipped"]) == (1, 42, 0)
    assert found["overlap_with_train"] == {"exact": 1, "normalised": 2}
    assert data["test"]["overlap_with_train"] == {"exact": 12, "normalised": 12}
    assert data["test"]["sha256"] == data["train"]["sha256"] != found["sha256"]
    assert len(bytes.fromhex(found["sha256"])) == hashlib.sha256().digest_size
    tokens = [
        json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().split("\n")[:-1]
    ]
    assert data["train"]["tokens"] == max(line.get("tokens", 0) for line in tokens)
    assert "overlap_with_train" not in data["train"]
    found = {(finding["code"], finding["split"]) for finding in results["diagnosis"]}
    assert {("trained-on", "test"), ("seen-in-training", "validation")} <= found
    assert any(one.startswith("test: every row was trained on") for one in results["warnings"])


@pytest.mark.parametrize("mode", ["full", "head_only", "lora", "qlora"])
def test_parts_and_modules_add_up_to_the_total(mode, recipe, tmp_path):
    counts = train(recipe, tmp_path / "run", **{"tuning.mode": mode})["parameters"]
    parts = [counts[part] for part in ("backbone", "head", "adapters")]
    assert sum(part["total"] for part in parts) == counts["total"]
    assert sum(part["trainable"] for part in parts) == counts["trainable"]
    assert (counts["adapters"]["total"] > 0) == (mode in ("lora", "qlora"))
    assert (counts["stored"] < counts["total"]) == (mode == "qlora")
    tops = [module for module in counts["modules"] if "." not in module["name"]]
    assert sum(module["repeats"] * module["parameters"] for module in tops) == counts["total"]
    folded_layer = next(one for one in counts["modules"] if one["name"] == "bert.encoder.layer.0-1")
    assert folded_layer["repeats"] == 2
    for module in counts["modules"]:
        if module["arithmetic"]:
            products = [
                term.replace(",", "").split(" x ") for term in module["arithmetic"].split(" + ")
            ]
            inside = sum(int(np.prod([*map(int, factors)])) for factors in products)
            assert inside == sum(int(np.prod(shape)) for shape in module["shapes"].values())
    (embedding,) = (one for one in counts["modules"] if one["name"].endswith("word_embeddings"))
    assert embedding["arithmetic"] == f"{counts['vocabulary']} x 32"
    assert counts["notes"][0].startswith(f"{counts['total']:,} parameters = ")


def test_after_one_step_of_lora_only_its_b_has_moved(recipe, tmp_path):
    """A's gradient is a product with B, which begins at 0."""
    one_step = {"tuning.mode": "lora", "schedule.steps": 1, "schedule.epochs": None}
    learned = train(recipe, tmp_path / "one", **one_step)["learned"]
    assert learned["zero_adapters"] == []
    assert {name.partition(".lora_")[2] for name in learned["without_gradient"]} == {
        "A.default.weight"
    }
    assert all(".layer.*." in name or "pooler" in name for name in learned["without_gradient"])
    learned = train(recipe, tmp_path / "two", **{**one_step, "schedule.steps": 2})["learned"]
    assert learned == {"zero_adapters": [], "without_gradient": []}


def test_adapters_that_learned_nothing_are_named(recipe, tmp_path):
    still = {"tuning.mode": "lora", "optimizer.learning_rate": 1e-60}
    results = train(recipe, tmp_path / "run", **still)
    found = results["learned"]["zero_adapters"]
    assert "bert.encoder.layer.*.attention.self.query" in found
    assert "zero-adapters" in {finding["code"] for finding in results["diagnosis"]}


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(96, 96) for _ in range(3))
        self.unused = nn.Linear(96, 96)


@pytest.mark.parametrize("settings", [{}, {"name": "adamw_8bit"}])
@pytest.mark.parametrize("zeros", [False, True])
def test_parameters_without_a_gradient_are_found(settings, zeros):
    model = Branches()
    parameters = dict(model.named_parameters())
    optimizer = build_optimizer(parameters, Optimizer(**settings))
    for _ in range(2):
        hidden = torch.ones(4, 96)
        for index in (0, 2):
            hidden = model.layers[index](hidden)
        loss = hidden.square().sum()
        if zeros:
            loss = loss + 0.0 * (model.unused(hidden) + model.layers[1](hidden)).sum()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert without_gradient(model, optimizer, parameters) == [
        *("layers.1.weight", "layers.1.bias", "unused.weight", "unused.bias")
    ]


def test_sgd_and_an_optimizer_that_never_stepped_cannot_tell():
    model = Branches()
    parameters = dict(model.named_parameters())
    plain = build_optimizer(parameters, Optimizer(name="sgd", momentum=0.9))
    model.unused(torch.ones(4, 96)).sum().backward()
    plain.step()
    assert without_gradient(model, plain, parameters) is None
    assert without_gradient(model, build_optimizer(parameters, Optimizer()), parameters) is None


def test_names_of_all_layers_are_folded_into_one():
    among = [f"base_model.model.layer.{i}.{part}" for i in range(3) for part in ("a", "b")]
    assert folded([name for name in among if name.endswith("a")], among) == ["layer.*.a"]
    assert folded(among[1:2], among) == ["layer.0.b"]
    assert folded([], among) == []
    assert zero_adapters(Branches()) == []


def test_each_start_and_resumption_is_a_session(recipe, tmp_path, write_recipe):
    file = write_recipe(recipe)
    run = tmp_path / "run"
    overrides = ("--set", "schedule.epochs=null", "--set", "checkpoint.every_steps=2")
    constant = ("--set", "schedule.name=constant", *overrides)
    command("train", file, "--run-dir", run, *constant, "--set", "schedule.steps=2")
    command("train", file, "--run-dir", run, *constant, "--set", "schedule.steps=4")
    command("train", file, "--run-dir", run, *constant, "--set", "schedule.steps=4")  # is finished
    results = json.loads((run / "results.json").read_text())
    first, second = results["environment"]["sessions"]
    assert (first["step"], second["step"]) == (0, 2)
    assert first["started"] <= first["ended"] <= second["started"]
    assert {"command", "processes", "host"} <= first.keys()
    assert results["environment"] == json.loads((run / "environment.json").read_text())


def test_an_older_environment_becomes_the_first_session(tmp_path):
    old = {"command": ["trainer"], "python": "3.11", "processes": 2, "started": "2026-01-01"}
    (tmp_path / "environment.json").write_text(json.dumps(old))
    write_environment(tmp_path)
    begin_session(tmp_path, 7)
    first, second = recorded_sessions(tmp_path)
    assert first == {"command": ["trainer"], "processes": 2, "started": "2026-01-01"}
    assert second["step"] == 7


@pytest.mark.parametrize("content", ["", "[]", "{", '{"sessions": 3}', '{"sessions": [1, {}]}'])
def test_a_damaged_environment_is_written_again(content, tmp_path):
    (tmp_path / "environment.json").write_text(content)
    before = recorded_sessions(tmp_path)
    assert before in ([], [{}])
    write_environment(tmp_path)
    begin_session(tmp_path, 0)
    assert len(recorded_sessions(tmp_path)) == len(before) + 1
