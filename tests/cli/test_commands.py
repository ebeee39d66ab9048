"""The commands as a user runs them: what a run leaves, and what can be done with it."""

import json
import shutil

import pytest
import torch
from support.command_line import invoke, run
from support.launches import tensors_of
from transformers import AutoModelForSequenceClassification, AutoTokenizer


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of a tiny BERT that learns to tell two words apart."""
    folder = tmp_path_factory.mktemp("finished")
    rows = [
        {"text": f"number {index} is {word} {'indeed ' * (index % 7)}", "label": label}
        for index in range(60)
        for word, label in (("good", "yes"), ("bad", "no"))
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "recipe.yaml").write_text(
        f"""
model:
  architecture: {{model_type: bert, hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 2,
                 intermediate_size: 64}}
  initialization: random
  tokenizer: {{train: wordpiece, vocab_size: 200}}
task: {{name: classification}}
data:
  source: {{files: {{train: {folder}/rows.jsonl}}}}
  split: {{validation: {{ratio: 0.2, seed: 1}}, test: {{ratio: 0.2, seed: 2}}}}
batch: {{global_batch_size: 8}}
optimizer: {{learning_rate: 3e-3}}
schedule: {{epochs: 8}}
tracking: {{trackers: [tensorboard], log_every_steps: 3}}
"""
    )
    output = run("train", folder / "recipe.yaml", "--run-dir", folder / "run")
    return folder / "run", output


def test_a_run_leaves_what_it_promises(finished):
    directory, output = finished
    names = {path.name for path in directory.iterdir()}
    assert names >= {
        *("config.yaml", "environment.json", "status.json", "metrics.jsonl", "tensorboard"),
        *("checkpoints", "model", "predictions", "results.json", "report.md", "report.html"),
    }
    assert not [name for name in names if "staging" in name]
    assert list((directory / "tensorboard").rglob("events.out.tfevents.*"))
    assert json.loads((directory / "status.json").read_text())["state"] == "done"

    results = json.loads((directory / "results.json").read_text())
    assert results["parameters"].keys() >= {"total", "trainable", "stored"}
    assert len(results["epochs"]) == len(results["seconds"]["per_epoch"]) == 8
    assert results["processes"] == 1
    assert results["precision"] == "fp32"
    assert results["peak_memory_bytes"] > 10**7
    assert results["scales"]["accuracy"] == "0-1"
    for split in ("validation", "test"):
        before, after = results["baseline"][split], results["best"]["metrics"][split]
        assert after["accuracy"] > before["accuracy"] + 0.3, "it learned"
        assert results["final"]["metrics"][split]["accuracy"] > 0.8
        records = (directory / "predictions" / f"{split}.jsonl").read_text().splitlines()
        right = [one["label"] == one["prediction"] for one in map(json.loads, records)]
        assert sum(right) / len(right) == after["accuracy"]
    assert "baseline" in output
    assert str(directory / "model") in output


def test_the_exported_model_gives_the_predictions(finished):
    directory, _ = finished
    model = AutoModelForSequenceClassification.from_pretrained(directory / "model").eval()
    tokenizer = AutoTokenizer.from_pretrained(directory / "model")
    texts = ["number 7 is good indeed", "number 7 is bad indeed"]
    with torch.no_grad():
        logits = model(**tokenizer(texts, return_tensors="pt", padding=True)).logits
    assert [model.config.id2label[int(index)] for index in logits.argmax(-1)] == ["yes", "no"]


def test_evaluate_gives_what_the_results_say(finished):
    directory, _ = finished
    results = json.loads((directory / "results.json").read_text())
    for name, key in (("best", "best"), ("last", "final")):
        printed = run("evaluate", directory, "--checkpoint", name, "--split", "test", "--json")
        metrics = json.loads(printed.splitlines()[-1])
        assert metrics["step"] == results[key]["step"]
        assert metrics["accuracy"] == results[key]["metrics"]["test"]["accuracy"]
        assert metrics["loss"] == pytest.approx(results[key]["metrics"]["test"]["loss"], abs=1e-6)
    step = results["final"]["step"]
    assert f"step             {step}" in run("evaluate", directory, "--checkpoint", step)


def test_other_data_with_other_names_gives_the_same_metrics(finished, tmp_path):
    directory, _ = finished
    own_names = directory.parent / "rows.jsonl"
    own = json.loads(invoke("evaluate", directory, "--data", own_names, "--json").stdout)
    assert sum(label["support"] for label in own["per_class"].values()) == 120
    assert any("given rows also occur in train" in note for note in own["other_data"]["notes"])
    rows = [json.loads(line) for line in own_names.read_text().splitlines()]
    # The file also has columns under the run's names, with something else in them.
    others = [{"label": row["text"], "text": row["label"], "body": row["text"]} for row in rows]
    file = tmp_path / "others.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in others))
    names = ["--set", "data.columns.text=body", "--set", "data.columns.label=text"]
    metrics = json.loads(invoke("evaluate", directory, "--data", file, *names, "--json").stdout)
    described = metrics.pop("other_data")
    assert (described["source"], described["rows"]) == (str(file), len(rows))
    assert metrics.pop("split") == "given"
    for name in ("loss", "accuracy", "per_class", "step"):
        assert metrics[name] == own[name]
    assert f"{len(rows):,} rows, not the run's own" in run(
        "evaluate", directory, "--data", file, *names
    )


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--set", "data.columns.text=body"], "--set names the columns of other data"),
        (["--data", "x.jsonl", "--split", "test"], "give --data or --split"),
        (["--data", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--data", "FILE", "--set", "batch.max_seq_length=9"], "the columns that the run reads"),
        (["--data", "FILE", "--set", "data.columns.text=tekst"], "has no column tekst"),
        (["--data", "FILE", "--set", "data.columns.text_pair=text"], "the columns that the run"),
        (["--data", "FILE", "--set", "text"], "write it as key.path=value"),
    ],
)
def test_other_data_that_cannot_be_measured_is_one_sentence(finished, tmp_path, arguments, part):
    directory, _ = finished
    (tmp_path / "rows.jsonl").write_text('{"text": "good", "label": "yes"}\n')
    named = [str(tmp_path / "rows.jsonl") if part == "FILE" else part for part in arguments]
    done = invoke("evaluate", directory, *named)
    assert done.exit_code == 2
    assert part in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--checkpoint", "7"], "the run keeps the steps"),
        (["--split", "dev"], "the run has train, validation, test"),
    ],
)
def test_evaluate_refuses_what_is_not_there(finished, arguments, part):
    directory, _ = finished
    done = invoke("evaluate", directory, *arguments)
    assert done.exit_code == 2
    assert part in done.output


@pytest.mark.parametrize("name", ["", "x" * 300, "a file"])
@pytest.mark.parametrize(
    "command", ["evaluate", "compare", "checkpoints ls", "train demo --run-dir"]
)
def test_a_name_that_is_no_directory_is_one_line(tmp_path, monkeypatch, command, name):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a file").touch()
    done = invoke(*command.split(), name)
    assert done.exit_code == 2
    assert "RUN_DIR" in done.output or "run-dir" in done.output
    assert len(done.output) < 500


@pytest.mark.parametrize(
    "command", ["evaluate", "checkpoints ls", "checkpoints verify", "checkpoints prune"]
)
def test_a_directory_without_a_run_is_refused(command, tmp_path):
    assert "holds no run" in run(*command.split(), tmp_path, code=2)


def test_a_new_directory_from_a_checkpoint_ends_like_the_old_one(
    reviews_recipe, write_recipe, tmp_path
):
    reviews_recipe["checkpoint"] |= {"every_steps": 6, "keep_last": 9}
    recipe = write_recipe(reviews_recipe)
    run("train", recipe, "--run-dir", tmp_path / "old")
    checkpoint = tmp_path / "old" / "checkpoints" / "step-00000006"
    run("train", recipe, "--run-dir", tmp_path / "new", "--resume", checkpoint)
    last = "checkpoints/step-00000020"
    old, new = tensors_of(tmp_path / "old" / last), tensors_of(tmp_path / "new" / last)
    assert all(torch.equal(old[name], new[name]) for name in old)


def test_a_broken_newest_checkpoint_is_passed_over(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["checkpoint"] |= {"every_steps": 6, "keep_last": 9}
    recipe, directory = write_recipe(reviews_recipe), tmp_path / "run"
    run("train", recipe, "--run-dir", directory)
    whole = tensors_of(directory / "checkpoints" / "step-00000020")
    # As if it had died in the save of step 18: what came later is not there.
    (directory / "status.json").unlink()
    shutil.rmtree(directory / "checkpoints" / "step-00000020")
    (directory / "checkpoints" / "step-00000018" / "model-00001.safetensors").write_bytes(b"half")
    output = run("train", recipe, "--run-dir", directory)
    assert "passed over" in output
    assert "step-00000018" in output
    again = tensors_of(directory / "checkpoints" / "step-00000020")
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_changed_data_is_refused(finished, tmp_path):
    directory = tmp_path / "run"
    shutil.copytree(finished[0], directory)
    (directory / "status.json").unlink()
    rows = finished[0].parent / "rows.jsonl"
    before = rows.read_text()
    try:
        rows.write_text(before.replace("indeed", "surely"))
        done = invoke("train", rows.with_name("recipe.yaml"), "--run-dir", directory)
    finally:
        rows.write_text(before)
    assert done.exit_code == 2
    assert "the training data changed" in done.output


def test_patience_ends_a_run_that_stopped_improving(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["optimizer"]["learning_rate"] = 1e-12
    reviews_recipe["schedule"]["epochs"] = 50
    reviews_recipe["evaluation"] = {"every": 2, "patience": 3}
    reviews_recipe["tracking"]["log_every_steps"] = 50  # no line is due where it stops
    run("train", write_recipe(reviews_recipe), "--run-dir", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["final"]["step"] == 8
    assert results["best"]["step"] == 2
    assert any("guessing" in warning or "above" in warning for warning in results["warnings"])


def test_the_last_step_has_its_line_also_where_nothing_is_evaluated(
    reviews_recipe, write_recipe, tmp_path
):
    reviews_recipe["data"]["split"] = {"validation": None, "test": None}
    reviews_recipe["schedule"] = {"steps": 7}
    run("train", write_recipe(reviews_recipe), "--run-dir", tmp_path / "run")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [5, 7]


def test_a_best_step_that_was_not_kept_is_looked_for_anew(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["checkpoint"] |= {"every_steps": 6, "keep_last": 1, "keep_best": False}
    recipe, directory = write_recipe(reviews_recipe), tmp_path / "run"
    run("train", recipe, "--run-dir", directory)
    (directory / "status.json").unlink()
    state = directory / "checkpoints" / "step-00000020" / "state.json"
    assert json.loads(state.read_text())["state"]["best_step"] is not None
    run("train", recipe, "--run-dir", directory, "--set", "checkpoint.keep_best=true")
    results = json.loads((directory / "results.json").read_text())
    assert results["final"]["step"] == 20


def test_a_new_run_may_not_keep_its_worst_step(reviews_recipe, write_recipe, tmp_path):
    for metric in ("accuracy", "f1_macro"):
        reviews_recipe["evaluation"] = {"metric": metric, "mode": "min"}
        recipe = write_recipe(reviews_recipe)
        for command in (["train", recipe, "--run-dir", tmp_path / "run"], ["prepare", recipe]):
            done = invoke(*command)
            assert done.exit_code == 2
            assert f"evaluation.mode: min takes the step with the smallest {metric}" in done.output


def test_a_run_that_was_begun_so_goes_on_and_says_it(
    reviews_recipe, write_recipe, tmp_path, monkeypatch
):
    reviews_recipe["checkpoint"] |= {"every_steps": 6, "keep_last": 9}
    reviews_recipe["evaluation"]["mode"] = "min"
    recipe, directory = write_recipe(reviews_recipe), tmp_path / "run"
    with monkeypatch.context() as earlier:  # a version that did not refuse it
        earlier.setattr("trainer.assembly.open_directory.check_mode", lambda _recipe: None)
        run("train", recipe, "--run-dir", directory)
    shutil.rmtree(directory / "checkpoints" / "step-00000020")
    (directory / "status.json").unlink()
    (directory / "results.json").unlink()
    assert "accuracy" in run("evaluate", directory)
    output = run("train", recipe, "--run-dir", directory)
    assert "note: min takes the step with the smallest accuracy" in output
    results = json.loads((directory / "results.json").read_text())
    assert results["final"]["step"] == 20


def test_seconds_of_training_leave_out_evaluation(finished):
    directory, _ = finished
    results = json.loads((directory / "results.json").read_text())
    seconds = results["seconds"]
    assert seconds["total"] == pytest.approx(sum(seconds["per_epoch"]) + seconds["evaluation"])
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    tokens = [line["tokens"] for line in lines if line["split"] == "train"]
    assert tokens == sorted(set(tokens))
    epochs = results["epochs"]
    assert [one["seconds"] for one in epochs] == pytest.approx(seconds["per_epoch"])
    learned = sum(one["seconds"] * one["tokens_per_second"] for one in epochs)
    assert learned == pytest.approx(tokens[-1])


def test_the_checkpoint_of_each_epoch_is_kept(reviews_recipe, write_recipe, tmp_path):
    """20 steps in two epochs, a checkpoint each third step of which the last one is kept."""
    reviews_recipe["checkpoint"] |= {"every_steps": 3, "every_epoch": True, "keep_last": 1}
    reviews_recipe["checkpoint"]["keep_best"] = False
    run("train", write_recipe(reviews_recipe), "--run-dir", tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").glob("step-*"))
    assert kept == ["step-00000010", "step-00000020"]
