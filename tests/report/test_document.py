"""The report: what was measured, the baseline beside the result, and the warnings."""

import copy
from typing import Any

import pytest

from trainer.report.document import report, write_report


def measured(loss: float, accuracy: float) -> dict[str, Any]:
    per_class = {"a": {"f1": accuracy}, "b": {"f1": accuracy}}
    return {"loss": loss, "accuracy": accuracy, "seconds": 1.5, "per_class": per_class}


RESULTS: dict[str, Any] = {
    "recipe": {
        "model": {
            "name_or_path": None,
            "architecture": {"model_type": "bert"},
            "initialization": "random",
        },
        "tuning": {"mode": "full"},
        "evaluation": {"metric": "accuracy"},
    },
    "parameters": {"total": 1234567, "trainable": 4321, "stored": 617000},
    "baseline": {"validation": measured(0.7111, 0.4888), "test": measured(0.7222, 0.4777)},
    "baseline_is": "pretrained",
    "epochs": [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "train_loss": 0.6 / epoch,
            "validation": measured(0.5 / epoch, 0.8),
            "seconds": 2.5,
            "tokens_per_second": 1234.5,
            "peak_memory_bytes": 300 * 2**20,
        }
        for epoch in (1, 2)
    ],
    "best": {
        "step": 10,
        "epoch": 1,
        "metrics": {"validation": measured(0.3111, 0.9111), "test": measured(0.3222, 0.9)},
    },
    "final": {
        "step": 20,
        "epoch": 2,
        "metrics": {"validation": measured(0.3444, 0.8999), "test": measured(0.3555, 0.8)},
    },
    "model": "best",
    "seconds": {"total": 12.34},
    "peak_memory_bytes": 300 * 2**20,
    "processes": 2,
    "precision": "fp32",
    "warnings": [],
}


@pytest.fixture
def results() -> dict[str, Any]:
    return copy.deepcopy(RESULTS)


def rows(text: str) -> list[list[str]]:
    """Returns the cells of every table line."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_baseline_best_and_final_stand_beside_each_other(results):
    found = rows(report("demo", results))
    assert ["validation", "baseline", "best (step 10)", "final (step 20)"] in found
    assert ["loss", "0.7111", "0.3111", "0.3444"] in found
    assert ["accuracy", "0.4888", "0.9111", "0.8999"] in found
    assert ["test", "baseline", "best (step 10)", "final (step 20)"] in found
    assert ["loss", "0.7222", "0.3222", "0.3555"] in found


def test_epochs_have_losses_the_deciding_metric_time_and_memory(results):
    text = report("demo", results)
    assert "| validation loss | validation accuracy |" in text
    found = rows(text)
    assert ["1", "10", "0.6000", "0.5000", "0.8000", "2.5", "1,234", "300"] in found
    assert ["2", "20", "0.3000", "0.2500", "0.8000", "2.5", "1,234", "300"] in found


def test_what_was_not_measured_is_left_out(results):
    for part in (results["best"]["metrics"], results["final"]["metrics"], results["baseline"]):
        del part["test"]
    text = report("demo", results)
    assert "## validation" in text
    assert "## test" not in text


def test_without_a_baseline_its_column_is_empty(results):
    results["baseline"] = {}
    assert ["accuracy", "", "0.9111", "0.8999"] in rows(report("demo", results))


def test_zero_shot_stands_beside_a_baseline_that_is_called_what_it_is(results):
    results |= {"baseline_is": "untrained head"}
    zero_shot = {"accuracy": 0.6543, "total": 64, "seconds": 2.0}
    found = rows(report("demo", results | {"zero_shot": {"validation": zero_shot}}))
    title = "baseline (untrained head)"
    assert ["validation", title, "zero-shot", "best (step 10)", "final (step 20)"] in found
    assert ["accuracy", "0.4888", "0.6543", "0.9111", "0.8999"] in found
    assert ["loss", "0.7111", "", "0.3111", "0.3444"] in found
    text = report("demo", results | {"zero_shot": {"validation": zero_shot}})
    assert "zero-shot: of 64 questions" in text.split("## test")[0]
    assert text.count("zero-shot: of") == 1
    assert "zero-shot" not in report("demo", results | {"zero_shot": {}})
    assert "zero-shot" not in report("demo", results)
    random = rows(report("demo", results | {"baseline_is": "random weights"}))
    assert random[0][1] == "baseline (random weights)"


def test_a_run_without_epochs_or_evaluations_has_a_report(results):
    results |= {"epochs": [], "baseline": {}}
    for name in ("best", "final"):
        results[name]["metrics"] = {}
    text = report("demo", results)
    assert rows(text) == []
    assert "## Run" in text


def test_the_run_is_described(results):
    text = report("demo", results)
    for fact in (
        "1,234,567",
        "4,321 trained",
        "617,000",
        "2 processes, fp32",
        "12.3 s",
        "300 MiB",
    ):
        assert fact in text
    assert "holds the best step" in text


def test_warnings_appear_where_there_are_any(results):
    assert "Warnings" not in report("demo", results)
    results["warnings"] = ["validation: every example is predicted as 'a'"]
    text = report("demo", results)
    assert "## Warnings\n\n- validation: every example is predicted as 'a'" in text


def test_tables_are_aligned(results):
    lines = [line for line in report("demo", results).splitlines() if line.startswith("|")]
    validation = lines[: next(i for i, line in enumerate(lines) if line.startswith("| test"))]
    assert len({len(line) for line in validation}) == 1


def test_both_files_hold_the_same_text_and_html_is_escaped(results, tmp_path):
    results["warnings"] = ["<b> & more"]
    write_report(tmp_path, results)
    assert (tmp_path / "report.md").read_text() == report(tmp_path.name, results)
    page = (tmp_path / "report.html").read_text()
    assert "&lt;b&gt; &amp; more" in page
    assert "<b>" not in page


HOSTILE = "<img src=x onerror=a()> [a](http://x) ![b](y) `c` | d \x1b[31m\n# e"


def test_markup_in_texts_and_names_is_shown_as_text(results, tmp_path):
    results["warnings"] = [HOSTILE]
    results["recipe"]["model"]["name_or_path"] = f"org/{HOSTILE}"
    run = tmp_path / "<b>run"
    run.mkdir()
    write_report(run, results)
    text = (run / "report.md").read_text()
    for markup in ("<img", "<b>", "[a](", "![b]", "`c`", " | d", "\x1b", "\n# e"):
        assert markup not in text.replace("\\`", "").replace("\\|", "").replace("\\[", "")
    assert "&lt;" in text
    page = (run / "report.html").read_text()
    assert "<img" not in page
    assert "[a](http://x)" in page  # a page shows it as it stands
