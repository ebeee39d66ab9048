"""The GPU script in a rehearsal, and its summary, in which no failed or unfinished check passes.

On a machine with a GPU, -m gpu runs the script itself.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import shapes
import stage_plan
import summary
from plan_rows import ROWS, TASKS

RUN = Path(__file__).parent / "run"
STAGES = "correctness qlora plan full encoder longest stall profile".split()


def start(*arguments: str, seconds: int, **changes: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **changes}
    return subprocess.run(
        ["bash", str(RUN), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=seconds,
    )


@pytest.mark.distributed
@pytest.mark.timeout(1600)
def test_the_rehearsal(tmp_path):
    """The whole script on this CPU with tiny models."""
    done = start(str(tmp_path), "--device", "cpu", "--tiny", seconds=1560)
    assert done.returncode == 0, done.stdout
    summed = json.loads((tmp_path / "summary.json").read_text())
    assert summed["problems"] == {}
    assert "rehearsal" in summed["note"]
    records = {path.stem: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert records.keys() == {*STAGES, "summary"}
    for name in STAGES:
        assert records[name]["state"] == "ended"
        assert records[name]["versions"]["torch"] != "missing"
    for name in ("longest", "plan", "profile"):
        results = [check["result"] for check in records[name]["checks"].values()]
        assert results, name
        assert all(result.startswith("not run: no GPU") for result in results)
    tried = records["longest"]["figures"]["tried"]
    assert [length["length"] for length in tried] == [16, 32, 64]
    rows = records["plan"]["figures"]["rows"]
    assert len(rows) == 10
    for row in rows.values():
        assert row["planned"]["length"] == 32
        assert 0 < row["planned"]["allocated_in_training"] < row["planned"]["process"][0]
        assert row["measured"]["seconds_of_a_step"] > 0
        assert row["measured"]["allocated"] is None


def test_rows_of_plans_cover_tasks_modes_and_lengths():
    assert len({row.name for row in ROWS}) == 10
    assert {row.mode for row in ROWS} == {"full", "lora", "qlora"}
    for task in TASKS:
        assert len({row.length for row in ROWS if row.task == task}) == 2


def test_the_errors_of_a_plan_are_shares_of_what_was_measured():
    row = {
        "planned": {
            "allocated_in_training": 105,
            "allocated": 110,
            "reserved": 90,
            "process": [90, 130],
            "seconds_of_a_step": [1.0, 3.0],
        },
        "measured": {
            "allocated_in_training": 100,
            "allocated": 100,
            "reserved": 100,
            "process": 100,
            "seconds_of_a_step": 2.0,
        },
    }
    found = stage_plan.errors(row)
    expected = {"allocated_in_training": 0.05, "allocated": 0.1, "reserved": -0.1, "process": 0.1}
    assert found == pytest.approx(expected)
    slow = {**row, "measured": {**row["measured"], "seconds_of_a_step": 4.0, "process": None}}
    summed = stage_plan.headline([row, slow])
    assert summed["steps_within_the_planned_time"] == 1
    assert summed["reserved"] == pytest.approx({"mean": 0.1, "worst": 0.1})
    assert summed["rows"] == 2


def test_shapes_are_those_of_the_models_named():
    assert shapes.llama_1b(tiny=False)["hidden_size"] == 2048
    assert shapes.llama_8b(tiny=False)["hidden_size"] == 4096
    assert shapes.bert_base(tiny=False)["hidden_size"] == 768


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["OUT", "--tiny"],
        ["OUT", "--device", "cpu"],
        ["OUT", "--device", "tpu"],
        ["OUT", "--device", "cpu", "--tiny", "--stages", "qlra"],
    ],
)
def test_invalid_arguments_are_refused(arguments, tmp_path):
    given = [str(tmp_path / "out") if argument == "OUT" else argument for argument in arguments]
    done = start(*given, seconds=60)
    assert done.returncode == 2
    assert done.stderr


def ended(folder: Path, name: str, code: str, checks: dict[str, str]) -> dict[str, Any]:
    """Ends a stage as the script does, after its process has left these results of checks."""
    results = {check: {"result": result} for check, result in checks.items()}
    file, log = folder / f"{name}.json", folder / f"{name}.log"
    record = {"stage": name, "state": "running", "note": None, "checks": results, "figures": {}}
    file.write_text(json.dumps(record))
    log.write_text("what was printed")
    summary.end(file, code, 3, log)
    log.unlink()
    return json.loads(file.read_text())


def test_failed_checks_and_stages_that_did_not_finish_are_problems(tmp_path):
    good = ended(tmp_path, "good", "0", {"a": "passed", "b": "not run: no GPU"})
    assert "log" not in good
    assert summary.sum_up(tmp_path, ["good"]) == 0
    bad = ended(tmp_path, "bad", "0", {"a": "passed", "b": "failed"})
    assert bad["log"] == "what was printed"
    late = ended(tmp_path, "late", "124", {"a": "passed"})
    dead = ended(tmp_path, "dead", "1", {})
    assert (late["state"], dead["state"]) == ("timed out", "died with code 1")
    assert late["checks"]["a"]["result"] == "passed"
    assert summary.sum_up(tmp_path, ["good", "bad", "late", "dead"]) == 1
    summed = json.loads((tmp_path / "summary.json").read_text())
    assert summed["problems"] == {"bad": ["b"], "late": ["timed out"], "dead": [dead["state"]]}
    assert (summed["passed"], summed["failed"], summed["not_run"]) == (3, 1, 1)


def test_a_stage_without_a_record_is_a_problem(tmp_path):
    summary.end(tmp_path / "none.json", "skipped", 0, tmp_path / "none.log")
    assert summary.sum_up(tmp_path, ["none"]) == 1


@pytest.mark.gpu
def test_on_a_gpu(tmp_path):
    """The whole script, 10 minutes, on a GPU that computes in bf16."""
    environment = dict(os.environ)
    del environment["CUDA_VISIBLE_DEVICES"]  # hidden from the other tests
    done = subprocess.run(
        ["bash", str(RUN), str(tmp_path)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout
