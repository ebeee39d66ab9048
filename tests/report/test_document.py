"""The model card: what the hub reads, and the report."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from support.sample_run import write_run

from trainer.report.document import model_card
from trainer.report.markdown import markdown
from trainer.report.recorded import read_run
from trainer.report.report import Report, report_of


@pytest.fixture
def report(tmp_path: Path) -> Report:
    return report_of(read_run(write_run(tmp_path / "demo")))


def test_a_hostile_name_of_a_model_ends_no_line_of_what_the_hub_reads(tmp_path):
    report = report_of(read_run(write_run(tmp_path / "run", "hostile")))
    card = model_card(report)
    name: Any = report.results["recipe"]["model"]["name_or_path"]
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == name
    assert "<script" not in card.split("---\n", 2)[2]


@pytest.mark.parametrize("name", [None, "google/bert"])
def test_a_model_card_opens_with_what_the_hub_reads(report, name):
    report.results["recipe"]["model"]["name_or_path"] = name
    _, header, text = model_card(report).split("---\n", 2)
    expected = {"library_name": "transformers"} | ({"base_model": name} if name else {})
    assert yaml.safe_load(header) == expected
    assert f"Base: {name or 'bert'}, random; tuning: full." in text
    assert markdown(report) in text
    assert "Load it so.\n\n# demo" in model_card(report, "Load it so.")
