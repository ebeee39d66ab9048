"""What leaves the machine with a push: card, recipe and results, without paths and secrets."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from support.command_line import run
from support.pushable_runs import HOME, SECRET

from trainer.publishing.contents import contents_of
from trainer.publishing.record import recipe_digest
from trainer.publishing.redaction import without_places
from trainer.recipe.keys import with_values
from trainer.tasks.recipe import parse_recipe


def texts(directory: Path, *, merge: bool = False) -> dict[str, str]:
    """Returns the files that a push sends, without weights."""
    files = contents_of(directory, merge=merge).files
    contents = {
        path: content if isinstance(content, bytes) else content.read_bytes()
        for path, content in files.items()
        if not path.endswith(".safetensors")
    }
    return {path: content.decode() for path, content in contents.items()}


@pytest.mark.parametrize("merge", [False, True])
def test_no_place_secret_or_machine_leaves(pushable, merge, tmp_path):
    directory = pushable(adapters=True, export=True)
    files = texts(directory, merge=merge)
    private = (HOME, str(tmp_path), str(Path.home()), SECRET, "password", "erikas-machine", "/opt")
    for path, text in files.items():
        for word in private:
            assert word not in text, path
    assert "train.csv: 3 rows are empty ([removed])" in files["README.md"].replace("\\", "")
    assert (
        "see metrics.jsonl and https://example.org/x"
        in json.loads(files["results.json"])["warnings"]
    )
    untouched = directory / "model" / "config.json"
    assert HOME in untouched.read_text()


def test_the_recipe_is_complete_and_names_files_by_their_last_part(pushable):
    directory = pushable(push={"repo_id": "alice/secret-plans"})
    text = texts(directory)["recipe.yaml"]
    values = yaml.safe_load(text)
    assert values["model"]["name_or_path"] == "tiny"
    assert values["data"]["source"]["files"] == {"train": "train.csv"}
    assert "push" not in values
    assert "secret-plans" not in text
    assert parse_recipe(values, "it").optimizer == contents_of(directory).recipe.optimizer


def test_results_have_metrics_and_intervals_but_no_machine(pushable):
    results = json.loads(texts(pushable())["results.json"])
    assert results["best"]["metrics"]["test"]["accuracy"]
    assert results["statistics"]["test"]["metrics"]["accuracy"]["best"]["low"]
    assert "environment" not in results
    assert "recipe" not in results
    assert "sha256" not in results["data"]["train"]


def test_the_record_has_the_fingerprints_that_were_verified(pushable):
    directory = pushable(export=True)
    record = json.loads(texts(directory)["trainer.json"])
    results = json.loads((directory / "results.json").read_text())
    assert record["files"] == results["export"]["model"]["files"]
    assert (record["part"], record["verified"]) == ("model", True)
    assert record["step"] == results["best"]["step"]
    assert set(record["sent"]) == {*contents_of(directory).files}


def test_the_card_of_adapters_has_the_metrics(pushable):
    card = ModelCard(texts(pushable(adapters=True))["README.md"], ignore_metadata_errors=False)
    assert card.data.library_name == "peft"
    assert card.data.pipeline_tag == "text-classification"
    assert card.data.base_model is None  # a folder, which the hub would take for a repository
    assert card.data.tags is None
    assert {result.metric_name for result in card.data.eval_results or []} >= {"accuracy"}
    for part in ("95 % interval", "## Data", "## Training", "## Limits", "## Warnings"):
        assert part in card.text
    assert "from_pretrained('tiny')" in card.text
    assert "The tokenizer is in this repository." in card.text
    assert "next to this folder" not in card.text


def test_adapters_of_a_model_of_the_hub_name_it(pushable):
    model = {"name_or_path": "some/bert", "initialization": "pretrained"}
    directory = pushable(adapters=True, model=model)
    config = directory / "adapter" / "adapter_config.json"
    config.write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/bert"}')
    card = directory / "adapter" / "README.md"
    card.write_text("---\nlibrary_name: peft\nbase_model: some/bert\n---\n\n# run\n")
    files = texts(directory)
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "some/bert"
    head = ModelCard(files["README.md"]).data
    assert (head.base_model, head.base_model_relation) == ("some/bert", "adapter")


def test_a_base_that_only_this_machine_has_is_not_named_and_said(pushable):
    contents = contents_of(pushable(adapters=True))
    config = contents.files["adapter_config.json"]
    assert isinstance(config, bytes)
    assert json.loads(config)["base_model_name_or_path"] is None
    assert any("the base model is a folder of this machine" in note for note in contents.notes)
    assert not any("folder" in note for note in contents_of(contents.directory, merge=True).notes)


def test_evaluation_results_go_along(pushable):
    source = {"hub": "stanfordnlp/sst2", "config": None}
    data = {"source": source, "split": {"test": "validation"}}
    data["columns"] = {"text": "sentence", "label": "label"}
    (name,) = [p for p in texts(pushable(data=data)) if p.startswith(".eval_results/")]
    assert name == ".eval_results/stanfordnlp-sst2.yaml"


def test_configurations_that_are_no_json_are_named(hub, pushable):
    directory = pushable()
    (directory / "model" / "config.json").write_text("{")
    assert "config.json is not JSON" in run("push", directory, "alice/demo", code=2)


FORM = """---
library_name: peft
license: mit
---

# Model Card for Model ID

- **Developed by:** [More Information Needed]
"""


@pytest.mark.parametrize("card", [FORM, None])
def test_older_runs_are_sent_as_far_as_their_files_go(pushable, card):
    directory = pushable(adapters=True)
    results: dict[str, Any] = json.loads((directory / "results.json").read_text())
    for key in ("version", "statistics", "data", "summary", "failures", "diagnosis", "checksum"):
        results.pop(key, None)
    (directory / "results.json").write_text(json.dumps(results))
    (directory / "status.json").unlink()
    (directory / "adapter" / "README.md").unlink()
    if card is not None:
        (directory / "adapter" / "README.md").write_text(card)
    shutil.rmtree(directory / "model" / ".eval_results", ignore_errors=True)
    files = texts(directory)
    assert "## Results" in files["README.md"]
    assert "## Data" not in files["README.md"]
    assert "Information Needed" not in files["README.md"]
    head = ModelCard(files["README.md"]).data
    assert (head.library_name, head.license) == ("peft", "mit" if card else None)
    assert "\n# run\n" in files["README.md"]
    assert json.loads(files["results.json"]).keys() >= {"best", "scales"}


def test_a_digest_is_that_of_what_is_learned(pushable):
    recipe = contents_of(pushable()).recipe
    same = {
        "checkpoint.keep_last": 9,
        "tracking.log_every_steps": 3,
        "schedule.epochs": 99,
        "data.source.files": {"train": "/mnt/elsewhere/train.csv"},
        "model.name_or_path": "/mnt/tiny",
    }
    assert recipe_digest(with_values(recipe, same)) == recipe_digest(recipe)
    for other in ({"seed": 9}, {"optimizer.learning_rate": 0.1}, {"model.name_or_path": "/x/big"}):
        assert recipe_digest(with_values(recipe, other)) != recipe_digest(recipe)


@pytest.mark.parametrize(
    ("text", "public"),
    [
        ("see /home/me/runs/demo/x.json: bad", "see x.json: bad"),
        ("'/home/me/data/a b.csv'", "'a b.csv'"),
        ("/home/meyer/x and ~/y/z", "x and z"),
        ("file:///mnt/x/y.csv: 3 rows", "y.csv: 3 rows"),
        ("http://u:p@host/x", "http://host/x"),
        ("hf_abcdefghijklmnopqrstuv", "[removed]"),
        ("https://huggingface.co/datasets/x/y", "https://huggingface.co/datasets/x/y"),
        ("and/or 0/1 ./x ../y/z [a](b/c) </b> /b", "and/or 0/1 ./x ../y/z [a](b/c) </b> /b"),
    ],
)
def test_paths_are_cut_to_their_last_part(text, public):
    assert without_places(text, ["/home/me/runs/demo", "/home/me"]) == public
