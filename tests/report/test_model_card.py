"""The card of a model: metadata that the hub's own library reads, and text that is escaped."""

import copy
import re
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard, parse_eval_result_entries
from support.command_line import run

from trainer.report.card.citations import bibtex
from trainer.report.card.model_card import model_card, with_results, write_card
from trainer.report.card.model_index import eval_results

HOSTILE = (
    "<img src=x onerror=a()> [a](http://x) ![b](y) `c` | d \x1b[31m\n---\n# e\n```\n} @evil{x, $\\"
)
REVISION = "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"
SST2: dict[str, Any] = {
    "recipe": {
        "model": {
            "name_or_path": "nreimers/MiniLM-L6-H384-uncased",
            "architecture": None,
            "initialization": "pretrained",
            "revision": None,
        },
        "tuning": {"mode": "full"},
        "task": {"name": "classification"},
        "data": {
            "source": {
                "hub": "stanfordnlp/sst2",
                "config": None,
                "revision": REVISION,
                "files": None,
                "builtin": None,
            },
            "split": {"validation": {"ratio": 0.1, "seed": 1}, "test": "validation"},
        },
        "batch": {"global_batch_size": 32, "max_seq_length": 128},
        "optimizer": {"name": "adamw", "learning_rate": 5e-5},
        "schedule": {"name": "linear", "epochs": 3, "steps": None},
        "evaluation": {"metric": "accuracy"},
    },
    "parameters": {"total": 1234567, "trainable": 4321, "stored": 617000},
    "baseline": {"test": {"loss": 0.7, "accuracy": 0.5092}},
    "baseline_is": "untrained head",
    "zero_shot": {"test": {"accuracy": 0.6}},
    "best": {
        "step": 120,
        "epoch": 2,
        "metrics": {
            "validation": {"loss": 0.3, "accuracy": 0.9},
            "test": {"loss": 0.31, "accuracy": 0.8741234567, "f1": 0.88, "seconds": 1.5},
        },
    },
    "final": {"step": 180, "epoch": 3, "metrics": {"test": {"accuracy": 0.87}}},
    "model": "best",
    "seconds": {"total": 12.34},
    "processes": 2,
    "precision": "fp32",
    "scales": {"accuracy": "0-1", "f1": "0-1"},
    "warnings": [],
    "statistics": {
        "test": {
            "num_examples": 872,
            "metrics": {
                "accuracy": {
                    "best": {"value": 0.8741, "low": 0.8504, "high": 0.8945, "method": "Wilson"}
                },
                "f1": {"best": {"value": 0.88, "low": None, "high": None, "method": None}},
            },
        }
    },
}


@pytest.fixture
def results() -> dict[str, Any]:
    return copy.deepcopy(SST2)


def card_of(results: dict[str, Any], name: str = "demo") -> ModelCard:
    return ModelCard(model_card(name, results), ignore_metadata_errors=False)


def test_the_hub_library_reads_the_metrics(results):
    data = card_of(results).data
    accuracy, f1 = data.eval_results
    assert data.model_name == "demo"
    assert (data.base_model, data.datasets) == (
        "nreimers/MiniLM-L6-H384-uncased",
        ["stanfordnlp/sst2"],
    )
    assert (data.pipeline_tag, data.library_name) == ("text-classification", "transformers")
    assert data.metrics == ["accuracy", "f1"]
    assert (accuracy.task_type, accuracy.metric_type) == ("text-classification", "accuracy")
    assert accuracy.metric_value == 0.874123
    assert (accuracy.dataset_type, accuracy.dataset_split) == ("stanfordnlp/sst2", "validation")
    assert accuracy.dataset_revision == REVISION
    assert f1.metric_value == 0.88


def test_the_table_has_intervals_and_what_the_metric_is_compared_with(results):
    text = card_of(results).text
    assert "| test | value | 95 % interval | baseline (untrained head) | zero-shot |" in text
    assert "| accuracy | 0.8741 | 0.8504 to 0.8945 (Wilson) | 0.5092 | 0.6000 |" in text
    assert "| f1 | 0.8800 |  |  |  |" in text
    assert "after step 120 on stanfordnlp/sst2, split validation; 872 examples." in text
    assert "1,234,567, of which 4,321 trained" in text


def test_a_run_without_statistics_has_a_table_without_intervals(results):
    del results["statistics"], results["zero_shot"]
    assert "| test | value | baseline (untrained head) |" in card_of(results).text


def test_without_a_test_split_the_card_shows_validation(results):
    del results["best"]["metrics"]["test"]
    (accuracy,) = card_of(results).data.eval_results
    assert (accuracy.metric_value, accuracy.dataset_split) == (0.9, "validation, held out")
    assert eval_results(results) == {}


def test_without_metrics_there_is_no_model_index(results):
    results["best"]["metrics"] = {}
    card = card_of(results)
    assert card.data.eval_results is None
    assert "## Results" not in card.text
    assert eval_results(results) == {}


@pytest.mark.parametrize(
    ("source", "name", "kind"),
    [
        ({"builtin": "reviews"}, "built-in reviews", "built-in-reviews"),
        (
            {"files": {"train": "/home/me/a.tsv", "test": "/home/me/Test 1.tsv"}},
            "Test 1.tsv",
            "test-1-tsv",
        ),
        ({"files": {"train": ["/home/me/a.tsv"]}}, "a.tsv", "a-tsv"),
        ({"hub": "/home/me/saved data"}, "saved data", "saved-data"),
    ],
)
def test_other_data_is_named_without_the_folder_it_lies_in(results, source, name, kind):
    results["recipe"]["data"]["source"] |= {"hub": None, "revision": None, **source}
    card = card_of(results)
    accuracy, _ = card.data.eval_results
    assert (accuracy.dataset_name, accuracy.dataset_type) == (name, kind)
    assert card.data.datasets is None
    assert "/home/me" not in card.content
    assert eval_results(results) == {}


def test_a_model_of_a_folder_is_named_by_the_folder(results):
    results["recipe"]["model"]["name_or_path"] = "/home/me/tiny"
    card = card_of(results)
    assert card.data.base_model is None
    assert "Base: tiny, pretrained; tuning: full." in card.text
    assert "/home/me" not in card.content


def test_evaluation_results_are_what_the_hub_library_reads(results, tmp_path):
    results["recipe"]["data"]["source"] |= {"hub": "nyu-mll/glue", "config": "sst2"}
    write_card(tmp_path, "demo", results)
    (file,) = (tmp_path / ".eval_results").iterdir()
    assert file.name == "nyu-mll-glue.yaml"
    (entry,) = parse_eval_result_entries(yaml.safe_load(file.read_text()))
    assert (entry.dataset_id, entry.task_id) == ("nyu-mll/glue", "sst2")
    assert (entry.value, entry.dataset_revision) == (0.874123, REVISION)
    assert entry.notes == (
        "accuracy, scale 0-1; split validation; 872 examples; "
        "95 % interval 0.8504 to 0.8945 (Wilson)"
    )
    assert entry.date is None


@pytest.mark.parametrize("revision", ["main", None])
def test_a_branch_is_no_revision_of_evaluation_results(results, revision):
    results["recipe"]["data"]["source"]["revision"] = revision
    assert "revision" not in eval_results(results)["stanfordnlp-sst2.yaml"][0]["dataset"]


@pytest.mark.parametrize(
    ("chosen", "split"),
    [("auto", "test"), ("test_matched", "test_matched"), ({"ratio": 0.2, "seed": 1}, None)],
)
def test_rows_that_the_run_held_out_are_no_split_of_the_hub(results, chosen, split):
    results["recipe"]["data"]["split"]["test"] = chosen
    accuracy, _ = card_of(results).data.eval_results
    assert accuracy.dataset_split == (split or "test, held out")
    assert bool(eval_results(results)) == (split is not None)


def test_a_loss_is_no_evaluation_result(results):
    results["recipe"]["evaluation"]["metric"] = "loss"
    assert eval_results(results) == {}


def entries_of(text: str) -> dict[str, str]:
    """Returns the entries by key, read with balanced braces as BibTeX does."""
    entries = {}
    position = 0
    while match := re.compile(r"\s*@\w+\{([^,]+),").match(text, position):
        depth, end = 1, match.end()
        while depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)  # also after a backslash
            end += 1
        entries[match[1]] = text[match.end() : end - 1]
        position = end
    assert not text[position:].strip()
    return entries


def test_model_data_and_tool_can_be_cited(results):
    entries = entries_of(bibtex(results))
    assert entries.keys() == {"base-model", "data", "trainer"}
    assert "title = {nreimers/MiniLM-L6-H384-uncased}" in entries["base-model"]
    assert "url = {https://huggingface.co/datasets/stanfordnlp/sst2}" in entries["data"]
    assert f"note = {{revision {REVISION}}}" in entries["data"]
    assert "version = {" in entries["trainer"]
    results["environment"] = {"packages": {"trainer": "0.0.9"}}
    results["recipe"]["model"]["name_or_path"] = None
    results["recipe"]["data"]["source"]["hub"] = "/home/me/data"
    assert entries_of(bibtex(results)).keys() == {"trainer"}
    assert "version = {0.0.9}" in bibtex(results)


def test_hostile_names_stay_text(results, tmp_path):
    results["recipe"]["model"] |= {"name_or_path": f"org/{HOSTILE}", "revision": HOSTILE}
    results["recipe"]["data"]["source"] |= {"hub": f"org/{HOSTILE}", "config": HOSTILE}
    results["recipe"]["data"]["split"]["test"] = HOSTILE
    results |= {"warnings": [HOSTILE], "summary": HOSTILE}
    card = card_of(results, HOSTILE)
    assert card.data.base_model == f"org/{HOSTILE}"
    assert card.data.model_name == HOSTILE
    assert card.data.eval_results[0].dataset_name == f"org/{HOSTILE}"
    prose, code = card.text.split("```bibtex\n")
    for markup in ("<img", "[a](", "![b]", "`c`", " | d", "\x1b", "\n# e", "```"):
        assert markup not in prose.replace("\\`", "").replace("\\|", "").replace("\\[", "")
    assert code.count("```") == 1
    assert entries_of(code.split("```")[0]).keys() == {"base-model", "data", "trainer"}
    write_card(tmp_path, HOSTILE, results)
    (file,) = (tmp_path / ".eval_results").iterdir()
    assert re.fullmatch(r"[a-z0-9-]{1,80}\.yaml", file.name)
    assert yaml.safe_load(file.read_text())[0]["dataset"]["task_id"] == HOSTILE


@pytest.mark.parametrize("name", ["org/a{", "org/a}", "org/a}, note = {b"])
def test_a_brace_in_a_name_ends_no_entry(results, name):
    results["recipe"]["model"]["name_or_path"] = name
    assert entries_of(bibtex(results)).keys() == {"base-model", "data", "trainer"}


@pytest.mark.parametrize("measured", [True, False])
def test_a_card_gets_its_sections_once(results, measured):
    if not measured:
        results["best"]["metrics"] = {}
    card = model_card("demo", results)
    assert ("## Results" in card) is measured
    assert with_results(card, "demo", results) == card
    adapters = with_results("# demo\n", "demo", results)
    assert adapters.count("## Training") == adapters.count("## Citation") == 1
    assert with_results(adapters, "demo", results) == adapters


def test_a_section_says_how_to_load_a_special_model(results):
    assert "\n\nLoad it so.\n\n## Results" in model_card("demo", results, "Load it so.")


def test_the_card_of_a_real_run_is_read_by_the_hub_library(reviews_recipe, write_recipe, tmp_path):
    reviews_recipe["data"]["source"]["num_rows"] = 80
    directory = tmp_path / "run"
    run("train", write_recipe(reviews_recipe), "--run-dir", directory)
    card = ModelCard.load(directory / "model" / "README.md")
    assert card.data.eval_results[0].metric_type == "accuracy"
    assert card.data.pipeline_tag == "text-classification"
    assert not (directory / "model" / ".eval_results").exists()
