"""Training on real data with a real pretrained model, from the folder TRAINER_TEST_DATA."""

import json
import os
from pathlib import Path

import pytest

from trainer.cli.train import train

FOLDER = Path(os.environ.get("TRAINER_TEST_DATA", "/nonexistent"))
pytestmark = [
    pytest.mark.distributed,  # second tier: minutes of training on one process
    pytest.mark.skipif(
        not FOLDER.is_dir(), reason="TRAINER_TEST_DATA names no folder with real data"
    ),
]


def results_of(values, write_recipe, directory) -> dict:
    values = {**values, "tracking": {"trackers": []}}
    assert train(str(write_recipe(values)), (), directory, "auto") == 0
    return json.loads((directory / "results.json").read_text())


@pytest.mark.parametrize(("mode", "gain"), [("full", 0.08), ("qlora", 0.03)])
def test_stories_learns_sst2(mode, gain, write_recipe, tmp_path):
    results = results_of(
        {
            "model": {"name_or_path": str(FOLDER / "models/stories260K")},
            "tuning": {"mode": mode},
            "task": {"name": "classification", "labels": ["negative", "positive"]},
            "data": {
                "source": {
                    "files": {
                        "train": str(FOLDER / "sst2/train.tsv"),
                        "test": str(FOLDER / "sst2/dev.tsv"),
                    }
                },
                "columns": {"text": "sentence", "label": "label"},
                "split": {"validation": {"ratio": 0.2, "seed": 1}},
                "max_rows": 5_000,
            },
            "optimizer": {"learning_rate": 1e-3 if mode == "full" else 2e-3},
            "schedule": {"epochs": 2, "warmup_ratio": 0.1},
        },
        write_recipe,
        tmp_path / "run",
    )
    before, after = results["baseline"]["validation"], results["best"]["metrics"]["validation"]
    assert sum(scores["support"] for scores in after["per_class"].values()) == 1000
    assert after["accuracy"] > before["accuracy"] + gain
    assert after["loss"] < before["loss"]


def test_the_untuned_model_guesses_sentiment_and_the_results_warn_of_it(write_recipe, tmp_path):
    prompt = {"prompt": "Review: {text}\nSentiment:", "answers": [" negative", " positive"]}
    results = results_of(
        {
            "model": {"name_or_path": str(FOLDER / "models/stories260K")},
            "task": {
                "name": "classification",
                "labels": ["negative", "positive"],
                "zero_shot": prompt,
            },
            "data": {
                "source": {"files": {"train": str(FOLDER / "sst2/dev.tsv")}},
                "columns": {"text": "sentence", "label": "label"},
                "split": {"validation": {"ratio": 0.4, "seed": 1}},
            },
            "schedule": {"steps": 2},
        },
        write_recipe,
        tmp_path / "run",
    )
    metrics = results["zero_shot"]["validation"]
    supports = [scores["support"] for scores in metrics["per_class"].values()]
    assert sum(supports) == 349
    assert abs(metrics["accuracy"] - max(supports) / 349) < 0.06
    warnings = [text for text in results["warnings"] if text.startswith("zero-shot validation: ")]
    assert any("is not above always answering" in text for text in warnings)


def test_stories_learns_shakespeare(write_recipe, tmp_path):
    results = results_of(
        {
            "model": {"name_or_path": str(FOLDER / "models/stories260K")},
            "task": {"name": "causal_lm"},
            "data": {
                "source": {"files": {"train": str(FOLDER / "text/tinyshakespeare.txt")}},
                "documents": "blank_lines",
                "split": {"validation": {"ratio": 0.05, "seed": 1}},
                "max_rows": 3000,
            },
            "batch": {"global_batch_size": 16, "max_seq_length": 128},
            "optimizer": {"learning_rate": 2e-3},
            "schedule": {"steps": 40, "warmup_ratio": 0.1},
        },
        write_recipe,
        tmp_path / "run",
    )
    assert results["baseline"]["validation"]["loss"] > 4.5
    assert results["final"]["metrics"]["validation"]["loss"] < 3.2


def test_squad_is_read_as_published(write_recipe, tmp_path):
    """A warning says when scores are no better than never answering."""
    results = results_of(
        {
            "model": {"name_or_path": str(FOLDER / "models/stories260K")},
            "task": {"name": "question_answering", "stride": 64},
            "data": {
                "source": {
                    "files": {
                        "train": str(FOLDER / "squad_v2/train.json"),
                        "validation": str(FOLDER / "squad_v2/dev.json"),
                    }
                },
                "max_rows": 150,
            },
            "batch": {"global_batch_size": 32, "max_seq_length": 384},
            "optimizer": {"learning_rate": 1e-3},
            "schedule": {"steps": 10},
        },
        write_recipe,
        tmp_path / "run",
    )
    before = results["baseline"]["validation"]
    after = results["final"]["metrics"]["validation"]
    assert after["total"] == after["HasAns_total"] + after["NoAns_total"] == 150
    assert after["loss"] < before["loss"]
    assert (
        after["f1_at_threshold"]
        >= after["never_answer"]
        == pytest.approx(100 * after["NoAns_total"] / 150)
    )
    lines = (tmp_path / "run" / "predictions" / "validation.jsonl").read_text().splitlines()
    odds = [json.loads(line)["no_answer_probability"] for line in lines]
    assert all(0 <= probability <= 1 for probability in odds)
    assert len(set(odds)) > 100
    warned = any("that of never answering" in warning for warning in results["warnings"])
    assert warned == (after["best_exact"] == pytest.approx(after["never_answer"]))


def test_wikitext_lines_make_documents_and_words_are_masked(write_recipe, tmp_path):
    results = results_of(
        {
            "model": {
                "architecture": {
                    "model_type": "bert",
                    "hidden_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "intermediate_size": 128,
                },
                "initialization": "random",
                "tokenizer": str(FOLDER / "tokenizers/bert-base-uncased"),
            },
            "task": {"name": "masked_lm", "next_sentence_prediction": True},
            "data": {
                "source": {"files": {"train": str(FOLDER / "wikitext2/wiki.test.raw")}},
                "documents": "headings",
                "split": {"validation": {"ratio": 0.2, "seed": 1}},
            },
            "batch": {"global_batch_size": 32, "max_seq_length": 128},
            "optimizer": {"learning_rate": 1e-3},
            "schedule": {"steps": 30, "warmup_ratio": 0.1},
        },
        write_recipe,
        tmp_path / "run",
    )
    before = results["baseline"]["validation"]["perplexity"]
    after = results["final"]["metrics"]["validation"]
    assert before > 25_000 > 15_000 > after["perplexity"]
    assert after["num_pairs"] > 300
