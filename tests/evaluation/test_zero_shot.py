"""Zero-shot in real runs: measured once, before the first step."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.command_line import invoke
from support.launches import launch_command, run_to_its_end
from transformers import AutoModel, AutoModelForCausalLM

from trainer.data.builtin import BUILTIN
from trainer.models.architecture import build_model_config
from trainer.models.tokenizers.tokenizer import load_tokenizer, train_tokenizer
from trainer.recipe.model import Model, TrainedTokenizer

LABEL_WORDS = {"prompt": "Review: {text}\nSentiment:", "answers": [" negative", " positive"]}
QUESTION = {"prompt": "{context}\nQuestion: {question}\nAnswer:", "num_examples": 10}
QUESTION |= {"max_new_tokens": 4}


def save(auto: Any, kind: str, folder: Path) -> Path:
    """Returns the folder of a random model with its tokenizer, as from a hub."""
    rows = BUILTIN["reviews"](80, 1)["train"]
    train_tokenizer(
        TrainedTokenizer(train="bpe", vocab_size=400), [row["text"] for row in rows], folder
    )
    numbers: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    numbers |= {"intermediate_size": 64, "max_position_embeddings": 512, "initializer_range": 0.3}
    settings = Model(
        architecture={"model_type": kind, **numbers},
        initialization="random",
        tokenizer=str(folder),
    )
    tokenizer = load_tokenizer(settings)
    torch.manual_seed(1)
    auto.from_config(build_model_config(settings, tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(AutoModelForCausalLM, "llama", tmp_path_factory.mktemp("llama"))


@pytest.fixture
def recipe(reviews_recipe, llama):
    """A recipe, to change at will: a saved Llama is asked for the sentiment of reviews."""
    reviews_recipe["model"] = {"name_or_path": str(llama)}
    reviews_recipe["task"]["zero_shot"] = LABEL_WORDS
    reviews_recipe["data"]["source"]["num_rows"] = 60
    reviews_recipe["schedule"] = {"epochs": 2}
    reviews_recipe["checkpoint"] |= {"every_steps": 2, "keep_last": 9}
    return reviews_recipe


def train(recipe: Path, directory: Path, *arguments: str) -> Any:
    return invoke("train", recipe, "--run-dir", directory, *arguments)


def results_of(recipe: Path, directory: Path) -> dict[str, Any]:
    done = train(recipe, directory)
    assert done.exit_code == 0, done.output
    return json.loads((directory / "results.json").read_text())


def asked_lines(directory: Path) -> list[dict[str, Any]]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [one for one in map(json.loads, lines) if one["split"].startswith("zero_shot")]


def titles(directory: Path) -> list[str]:
    text = (directory / "report.md").read_text()
    return [cell.strip() for cell in text.split("| validation")[1].splitlines()[0].split("|")[1:-1]]


def test_a_run_measures_it_once_next_to_an_untrained_head(recipe, write_recipe, tmp_path):
    recipe["tracking"]["trackers"] = ["tensorboard"]
    directory, file = tmp_path / "run", write_recipe(recipe)
    results = results_of(file, directory)
    assert results["baseline_is"] == "untrained head"
    assert results["baseline"].keys() == {"validation", "test"} == results["zero_shot"].keys()
    assert results["best"]["metrics"].keys() == results["final"]["metrics"].keys()
    assert len(results["epochs"]) == 2
    shown = titles(directory)
    assert shown[:3] == ["majority", "baseline (untrained head)", "zero-shot"]
    for split in ("validation", "test"):
        metrics = results["zero_shot"][split]
        assert "loss" not in metrics
        supports = sum(one["support"] for one in metrics["per_class"].values())
        records = directory / "predictions" / f"zero_shot_{split}.jsonl"
        answered = [json.loads(line) for line in records.read_text().splitlines()]
        assert [one["id"] for one in answered] == list(range(supports))
        right = [one["label"] == one["prediction"] for one in answered]
        assert sum(right) / supports == pytest.approx(metrics["accuracy"])
        assert any(one.startswith(f"zero-shot {split}: ") for one in results["warnings"])
    cells = next(
        line.split("|")[3:5]
        for line in (directory / "report.md").read_text().splitlines()
        if line.startswith("| accuracy ")
    )
    numbers = [results[name]["validation"]["accuracy"] for name in ("baseline", "zero_shot")]
    assert [float(cell.split()[0]) for cell in cells] == pytest.approx(numbers, abs=5e-4)

    # A resumed run does not ask again, and keeps the answers.
    (directory / "status.json").unlink()
    for step in sorted((directory / "checkpoints").iterdir())[2:]:
        for part in sorted(step.iterdir()):
            part.unlink()
        step.rmdir()
    before = asked_lines(directory)
    again = train(file, directory)
    assert again.exit_code == 0, again.output
    assert "resuming from" in again.output
    assert "zero_shot_" not in again.output
    assert asked_lines(directory) == before
    found = json.loads((directory / "results.json").read_text())
    assert found["zero_shot"] == results["zero_shot"]
    assert found["baseline"] == results["baseline"]


def test_the_lines_of_an_interrupted_start_are_written_again(recipe, write_recipe, tmp_path):
    directory, file = tmp_path / "run", write_recipe(recipe)
    directory.mkdir()
    line = {"step": 0, "epoch": 0, "split": "zero_shot_validation", "accuracy": 7.0}
    line |= {"train_loss": None, "seconds": 1.0, "peak_memory_bytes": 1}
    (directory / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    assert results_of(file, directory)["zero_shot"]["validation"]["accuracy"] <= 1
    assert len(asked_lines(directory)) == 2


def test_zero_shot_does_not_change_what_is_learned(recipe, write_recipe, tmp_path):
    asked = results_of(write_recipe(recipe), tmp_path / "asked")
    del recipe["task"]["zero_shot"]
    plain = results_of(write_recipe(recipe), tmp_path / "plain")
    assert "zero_shot" not in plain
    assert titles(tmp_path / "plain")[1] == "baseline (untrained head)"
    for name in ("baseline", "best"):
        mine, other = (one[name].get("metrics", one[name]) for one in (asked, plain))
        assert mine["validation"]["loss"] == other["validation"]["loss"]


def test_questions_are_answered_by_generation(recipe, write_recipe, tmp_path):
    recipe["task"] = {"name": "question_answering", "stride": 16, "zero_shot": QUESTION}
    recipe["data"] = {"source": {"builtin": "passages", "num_rows": 60}}
    recipe["batch"]["max_seq_length"] = 128
    recipe["schedule"] = {"steps": 2}
    recipe["evaluation"] = {"baseline": False}
    recipe["tuning"] = {"mode": "qlora", "r": 2}
    results = results_of(write_recipe(recipe), tmp_path / "run")
    assert results["baseline"] == {}
    for split in ("validation", "test"):
        metrics = results["zero_shot"][split]
        assert metrics["total"] == 10
        assert {"exact", "f1", "never_answer", "f1_at_threshold", "seconds"} <= metrics.keys()
        assert metrics["exact"] <= metrics["f1"]
    text = (tmp_path / "run" / "report.md").read_text()
    assert "zero-shot: of 10 questions" in text
    assert any(one.startswith("zero-shot validation: ") for one in results["warnings"])


def test_random_weights_are_not_asked_and_a_note_says_so(recipe, write_recipe, tmp_path):
    recipe["model"]["initialization"] = "random"
    results = results_of(write_recipe(recipe), tmp_path / "run")
    assert results["baseline_is"] == "random weights"
    assert "zero_shot" not in results
    assert "no zero-shot: random weights have learned nothing" in results["warnings"]
    assert titles(tmp_path / "run")[1] == "baseline (random weights)"


def test_a_tuned_model_is_a_baseline_without_a_note(recipe, write_recipe, tmp_path):
    del recipe["task"]["zero_shot"]
    recipe["schedule"] = {"steps": 1}
    results_of(write_recipe(recipe), tmp_path / "first")
    recipe["model"]["name_or_path"] = str(tmp_path / "first" / "model")
    assert results_of(write_recipe(recipe), tmp_path / "second")["baseline_is"] == "pretrained"
    assert titles(tmp_path / "second")[1] == "baseline"


@pytest.mark.parametrize(
    ("auto", "kind", "parts"),
    [
        (AutoModel, "bert", ("a bert is not a causal language model", "set task.zero_shot: null")),
        (AutoModel, "llama", ("has no weights of lm_head", "or set task.zero_shot: null")),
    ],
    ids=["encoder", "no vocabulary head"],
)
def test_a_model_that_cannot_answer_ends_the_run_before_its_first_step(
    auto, kind, parts, recipe, write_recipe, tmp_path
):
    recipe["model"]["name_or_path"] = str(save(auto, kind, tmp_path / "saved"))
    done = train(write_recipe(recipe), tmp_path / "run")
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["state"], status["exit_code"]) == ("failed", 2)
    assert all(part in status["message"] for part in parts)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_two_ranks_measure_the_same(recipe, write_recipe, tmp_path):
    recipe["schedule"] = {"steps": 1}
    file = write_recipe(recipe)
    alone = results_of(file, tmp_path / "one")
    command = launch_command("train", str(file), "--run-dir", str(tmp_path / "two"))
    done = run_to_its_end(command, tmp_path / "two")
    assert done.code == 0, done.output
    both = done.results()
    assert both["processes"] == 2
    for split, metrics in alone["zero_shot"].items():
        del metrics["seconds"], both["zero_shot"][split]["seconds"]
        assert both["zero_shot"][split] == metrics
        files = [
            (tmp_path / name / "predictions" / f"zero_shot_{split}.jsonl").read_text().splitlines()
            for name in ("one", "two")
        ]
        for one, other in zip(*files, strict=True):
            first, second = json.loads(one), json.loads(other)
            assert first.pop("log_likelihoods") == pytest.approx(
                second.pop("log_likelihoods"), rel=1e-5
            )
            assert first == second
