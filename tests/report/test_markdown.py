"""report.md: what was measured, the baseline beside the result, and the warnings."""

import copy
from pathlib import Path
from typing import Any

import pytest
from support.sample_run import write_run
from support.sample_tasks import HOSTILE

from trainer.report.markdown import markdown
from trainer.report.recorded import RecordedRun, read_run
from trainer.report.report import report_of


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
    "scales": {"accuracy": "0-1"},
    "warnings": [],
    "statistics": {},
    "failures": {},
    "diagnosis": [],
    "summary": "",
}


@pytest.fixture
def results() -> dict[str, Any]:
    return copy.deepcopy(RESULTS)


def shown(results: dict[str, Any]) -> str:
    """Returns the Markdown of a run with these results, none of them analysed."""
    run = RecordedRun(
        directory=Path("/runs/demo"),
        results=results,
        recipe=results["recipe"],
        lines=[],
        environment={},
        status={},
    )
    return markdown(report_of(run))


def rows(text: str) -> list[list[str]]:
    """Returns the cells of every table line."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_baseline_best_and_final_stand_beside_each_other(results):
    found = rows(shown(results))
    assert ["validation", "baseline", "best (step 10)", "final (step 20)"] in found
    assert ["loss", "0.7111", "0.3111", "0.3444"] in found
    assert ["accuracy", "0.489", "0.911", "0.900"] in found
    assert ["test", "baseline", "best (step 10)", "final (step 20)"] in found
    assert ["loss", "0.7222", "0.3222", "0.3555"] in found


def test_epochs_have_losses_the_deciding_metric_time_and_memory(results):
    text = shown(results)
    assert "| validation loss | validation accuracy |" in text
    found = rows(text)
    assert ["1", "10", "0.6000", "0.5000", "0.800", "2.5", "1,234", "300"] in found
    assert ["2", "20", "0.3000", "0.2500", "0.800", "2.5", "1,234", "300"] in found


def test_what_was_not_measured_is_left_out(results):
    for part in (results["best"]["metrics"], results["final"]["metrics"], results["baseline"]):
        del part["test"]
    text = shown(results)
    assert "## validation" in text
    assert "## test" not in text


def test_without_a_baseline_there_is_no_column_for_it(results):
    results["baseline"] = {}
    found = rows(shown(results))
    assert found[0] == ["validation", "best (step 10)", "final (step 20)"]
    assert ["accuracy", "0.911", "0.900"] in found


def test_a_step_that_is_best_and_last_has_one_column(results):
    results["best"] = results["final"]
    assert rows(shown(results))[0] == ["validation", "baseline", "best and final (step 20)"]
    results["model"] = "final"
    assert rows(shown(results))[0] == ["validation", "baseline", "final (step 20)"]


def test_zero_shot_stands_beside_a_baseline_that_is_called_what_it_is(results):
    results |= {"baseline_is": "untrained head"}
    zero_shot = {"accuracy": 0.6543, "total": 64, "seconds": 2.0}
    found = rows(shown(results | {"zero_shot": {"validation": zero_shot}}))
    title = "baseline (untrained head)"
    assert ["validation", title, "zero-shot", "best (step 10)", "final (step 20)"] in found
    assert ["accuracy", "0.489", "0.654", "0.911", "0.900"] in found
    assert ["loss", "0.7111", "", "0.3111", "0.3444"] in found
    text = shown(results | {"zero_shot": {"validation": zero_shot}})
    assert "zero-shot: of 64 questions" in text.split("## test")[0]
    assert text.count("zero-shot: of") == 1
    assert "zero-shot" not in shown(results | {"zero_shot": {}})
    assert "zero-shot" not in shown(results)
    random = rows(shown(results | {"baseline_is": "random weights"}))
    assert random[0][1] == "baseline (random weights)"


def test_a_run_without_epochs_or_evaluations_has_a_report(results):
    results |= {"epochs": [], "baseline": {}}
    for name in ("best", "final"):
        results[name]["metrics"] = {}
    text = shown(results)
    assert rows(text.split("## Run")[0]) == []
    assert "## Run" in text


def test_the_run_is_described(results):
    text = shown(results)
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
    assert "Warnings" not in shown(results)
    results["warnings"] = ["validation: every example is predicted as 'a'"]
    text = shown(results)
    assert "## Warnings and notes\n\n- validation: every example is predicted as 'a'" in text


def test_tables_are_aligned(results):
    lines = [line for line in shown(results).splitlines() if line.startswith("|")]
    validation = lines[: next(i for i, line in enumerate(lines) if line.startswith("| test"))]
    assert len({len(line) for line in validation}) == 1


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = write_run(tmp_path_factory.mktemp("runs") / "sst2")
    return markdown(report_of(read_run(directory)))


def test_intervals_and_tests_stand_beside_the_numbers(recorded):
    found = rows(recorded)
    majority, best = "0.509 (0.476–0.542)", "0.874 (0.852–0.896)"
    assert ["accuracy", majority, majority, best, "0.869 (0.846–0.892)"] in found
    difference, p = "0.365 (0.319–0.411)", "<0.001"
    compared = ["accuracy", "baseline → best", "exact McNemar", difference, p, p, "343", "25"]
    assert compared in found
    assert (
        "Smallest change that 872 examples show in four of five repetitions: accuracy 0.033. "
        "Models that agree more often need less." in recorded
    )


def test_the_summary_and_what_is_doubtful_come_first(recorded):
    head = recorded.split("## validation")[0]
    assert head.startswith("# sst2\n\nFine-tuning raised test accuracy from 0.509")
    assert "- **doubtful**: validation: the validation loss rises" in head
    assert "Try: train for fewer epochs, or with more weight decay" in head
    assert "longer than 96 tokens" not in head, "a note does not stand at the head"


def test_what_an_old_run_lacks_is_named(results, recorded):
    line = "not recorded by this run: what its data was, which parameters got a gradient"
    assert line in shown(results)
    assert "not recorded" not in recorded


def test_markup_in_names_labels_and_texts_is_shown_as_text(tmp_path):
    directory = write_run(tmp_path / "<b>run", "hostile")
    text = markdown(report_of(read_run(directory)))
    assert "\\[a\\](http://example.com)" in text
    for escaped in ("\\`", "\\|", "\\["):
        text = text.replace(escaped, "")
    for markup in ("<script", "<img", "</style", "<b>", "[a](", "![b]", "`tick`", "\x1b", "\u202e"):
        assert markup not in text, markup
    assert all(label.replace("\n", " ")[:4] in text for label in HOSTILE if label[0] in "=5x")
    widths = {line.count(" | ") for line in text.splitlines() if line.startswith("| &lt;script")}
    assert len(widths) == 1
