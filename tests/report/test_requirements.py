"""Requirements on runs: their form, which values fulfil them, and the exit code of `compare`."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from support.command_line import invoke

from trainer.errors import UNMET, WRONG, ConfigError
from trainer.process.finished_runs import FinishedRun
from trainer.report.comparison.requirements import check, parse_requirement

TEST = {"f1": 0.86, "loss": 0.4, "num": 7, "per_class": {"a.b": {"recall": 0.5}}, "kind": "exact"}


def run_with(directory: Path, **metrics: Any) -> FinishedRun:
    results = {"best": {"step": 1, "metrics": {"test": {**TEST, **metrics}}}}
    return FinishedRun(directory=directory, results=results, recipe={})


def finished(directory: Path, f1: float) -> Path:
    results = {
        "recipe": {"seed": 1, "evaluation": {"metric": "f1", "mode": "max"}},
        "baseline": {},
        "best": {"step": 3, "epoch": 1, "metrics": {"test": {"f1": f1}}},
        "seconds": {"total": 1.0},
        "peak_memory_bytes": 1,
        "scales": {},
    }
    directory.mkdir()
    (directory / "results.json").write_text(json.dumps(results))
    return directory


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("test.f1>=0.86", True),
        ("test.f1>0.86", False),
        (" test.f1 <= 0.86 ", True),
        ("test.f1<0.86", False),
        ("test.f1==0.86", True),
        ("test.num>=7", True),
        ("test.per_class.a.b.recall>=0.6", False),
        ("test.loss<5e-1", True),
    ],
)
def test_a_requirement_is_held_against_the_best_step(text, holds, tmp_path):
    assert check(parse_requirement(text), [run_with(tmp_path)])["holds"] is holds


@pytest.mark.parametrize(
    "text", ["f1>=0.8", "test.f1", "test.f1>=", "test.f1>=much", "test.f1>=nan", "test.>=1", ""]
)
def test_another_form_is_refused(text):
    with pytest.raises(ConfigError) as caught:
        parse_requirement(text)
    assert (caught.value.key, caught.value.value) == ("--require", text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [("tests.f1>0", "did you mean test?"), ("test.f2>0", "did you mean f1?"), ("x.y>0", "test")],
)
def test_what_was_not_measured_is_refused(text, hint, tmp_path):
    with pytest.raises(ConfigError) as caught:
        check(parse_requirement(text), [run_with(tmp_path)])
    assert hint in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["kind", "per_class"])
def test_only_numbers_have_bounds(name, tmp_path):
    with pytest.raises(ConfigError):
        check(parse_requirement(f"test.{name}>0"), [run_with(tmp_path)])


def test_nan_fulfils_nothing(tmp_path):
    run = run_with(tmp_path, f1=math.nan)
    assert not check(parse_requirement("test.f1<=1"), [run])["holds"]


def test_every_run_must_fulfil_it_and_the_exit_code_tells(tmp_path):
    good, bad = finished(tmp_path / "good", 0.9), finished(tmp_path / "bad", 0.8)
    arguments = ["compare", str(good), str(bad), "--require", "test.f1>=0.85"]
    result = invoke(*arguments)
    assert result.exit_code == UNMET == 3
    assert "test.f1>=0.85 does not hold: 0.8000 to 0.9000" in result.output
    (checked,) = json.loads(invoke(*arguments, "--json").output)["requirements"]
    assert checked["values"] == {str(good): 0.9, str(bad): 0.8}
    assert invoke("compare", str(good), "--require", "test.f1>=0.85").exit_code == 0
    assert invoke("compare", str(good), "--require", "test.f1").exit_code == WRONG
