"""The schema of results.json: real results fulfil it, and its file and its table are current."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from support.task_cases import CASES

import trainer
from trainer.report.results_reference import field_table, schema_text
from trainer.report.results_schema import VERSION, Results

FOLDER = Path(trainer.__file__).parent / "report"
WRITE = "python -c \"from trainer.report.results_reference import {0}; print({0}(), end='')\""


@pytest.fixture(
    scope="module",
    params=["classification", "question_answering", "causal_lm-instructions", "masked_lm"],
)
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The results of a tiny run of each task."""
    directory = tmp_path_factory.mktemp("runs") / request.param
    values = {**CASES[request.param].recipe(), "schedule": {"steps": 4}}
    trainer.train(
        trainer.Recipe(**{**values, "evaluation": {"every": 2}}), run_dir=directory, progress=None
    )
    return json.loads((directory / "results.json").read_text())


def test_results_of_each_task_fulfil_the_schema(results):
    jsonschema.validate(results, json.loads(schema_text()))
    Results.model_validate_json(json.dumps(results))
    assert results["version"] == VERSION


def test_an_unknown_or_a_missing_field_is_refused(results):
    schema = json.loads(schema_text())
    for changed in (
        {**results, "surprise": 1},
        {key: value for key, value in results.items() if key != "best"},
        {**results, "model": "worst"},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(changed, schema)


def test_the_file_is_current():
    file = FOLDER / "results.schema.json"
    assert file.read_text("utf-8") == schema_text(), f"{WRITE.format('schema_text')} > {file.name}"


def test_the_readme_explains_every_field():
    assert field_table() in (FOLDER / "README.md").read_text("utf-8"), WRITE.format("field_table")


def test_every_field_has_a_meaning():
    rows = field_table().splitlines()[2:]
    assert len(rows) > 100
    assert not [row for row in rows if row.endswith("|  |")]
