"""Several runs as one report: labels, groups, recipe differences, tests, churn, documents."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy import stats
from support.command_line import invoke, run
from support.recorded_runs import classified, counted, write_run

import trainer
from trainer.errors import ConfigError, RunDirectoryError
from trainer.report.comparison.several import MOST_PAIRS, several_of
from trainer.report.documents import tables_of, write_report
from trainer.report.tables import several as tables

GOLD = "np" * 20
POOR = "n" * 40  # right in 20 of 40
GOOD = GOLD[:36] + "pnpn"  # right in 36
HOSTILE = "<script>alert(1)</script>|"


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run with answers to the same examples."""

    def write(name: str, answers: str = GOOD, *, seed: int = 1, **settings: Any) -> Path:
        directory = tmp_path / "runs" / name
        after, before = classified(GOLD, answers), classified(GOLD, POOR)
        metrics = {
            "baseline": {"test": counted(before)},
            "best": {"test": counted(after), "validation": counted(after)},
        }
        files = {"test": after, "baseline-test": before}
        write_run(directory, metrics, files)
        file = directory / "results.json"
        results = json.loads(file.read_text())
        results["recipe"] |= {"seed": seed, **settings}
        file.write_text(json.dumps(results))
        return directory

    return write


@pytest.fixture
def sweep(save, tmp_path) -> Path:
    """Two settings over three seeds."""
    for seed in (1, 2, 3):
        save(f"poor-{seed}", POOR[: 36 + seed] + GOLD[36 + seed :], seed=seed, rate="low")
        save(f"good-{seed}", GOOD, seed=seed, rate="high")
    return tmp_path / "runs"


def test_runs_of_the_same_seed_are_tested_and_adjusted_together(sweep):
    several = several_of((sweep,))
    assert several.groups == {
        "rate=high": ["good-1", "good-2", "good-3"],
        "rate=low": ["poor-1", "poor-2", "poor-3"],
    }
    pairs = [(pair.first, pair.second) for pair in several.pairs]
    assert pairs == [("good-1", "poor-1"), ("good-2", "poor-2"), ("good-3", "poor-3")]
    tests = {test["metric"]: test for test in several.pairs[0].tests["test"]}
    found = tests["accuracy"]
    assert (found["won"], found["lost"]) == (4, 18)
    assert found["p"] == pytest.approx(stats.binomtest(4, 22).pvalue)
    all_tests = [test for pair in several.pairs for part in pair.tests.values() for test in part]
    smallest = min(all_tests, key=lambda test: test["p"])
    assert smallest["p_adjusted"] == pytest.approx(min(1, len(all_tests) * smallest["p"]))


def test_churn_between_runs_counts_every_example(save):
    first, second = save("first", POOR), save("second", GOOD, rate="high")
    (pair,) = several_of((first, second)).pairs
    assert pair.churn == {"test": {"fixed": 18, "broken": 2, "still_wrong": 2, "still_right": 18}}


def test_other_examples_are_not_compared(save):
    first, second = save("first", POOR), save("second", GOOD, rate="high")
    file = second / "predictions" / "test.jsonl"
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:-1]))
    (pair,) = several_of((first, second)).pairs
    assert (pair.tests.get("test", []), pair.churn) == ([], {})


def test_only_what_differs_between_recipes_is_shown(sweep):
    shown = tables.recipes_table(several_of((sweep,)))
    assert shown is not None
    assert {row[0] for row in shown.rows} == {"rate", "seed"}


def test_seeds_have_a_t_interval_and_every_point(sweep):
    several = several_of((sweep,))
    (table,) = (one for one in tables_of(several) if one.name == "groups-test")
    rows = {(row[0], row[1]): row for row in table.texts}
    points = [22 / 40, 21 / 40, 21 / 40]
    low, high = stats.t.interval(0.95, 2, loc=sum(points) / 3, scale=stats.sem(points))
    row = rows["accuracy", "rate=low"]
    assert row[3] == f"{sum(points) / 3:.3f} ({low:.3f}–{high:.3f})"
    assert row[5] == ", ".join(f"{point:.3f}" for point in points)
    assert "(" not in rows["accuracy", "rate=high"][3], "seeds that agree have no interval"


def test_runs_of_the_same_name_are_told_apart_by_their_folder(save):
    one, other = save("a/run"), save("b/run", rate="high")
    assert list(several_of((one, other)).reports) == ["a/run", "b/run"]


def test_a_comparison_needs_two_runs(save, tmp_path):
    directory = save("only")
    with pytest.raises(ConfigError) as caught:
        several_of((tmp_path / "runs",))
    assert caught.value.key == "RUN_DIR"
    with pytest.raises(RunDirectoryError):
        several_of((directory / "predictions",))


def test_at_most_so_many_pairs_are_tested(save, tmp_path):
    for seed in range(MOST_PAIRS + 2):
        save(f"one-{seed}", seed=seed)
        save(f"other-{seed}", seed=seed, rate="high")
    several = several_of((tmp_path / "runs",))
    assert (len(several.pairs), several.num_untested) == (MOST_PAIRS, 2)


def test_names_and_values_from_data_are_only_texts(save, tmp_path):
    save("plain")
    save(HOSTILE.replace("/", "∕"), rate=HOSTILE)
    several = several_of((tmp_path / "runs",), name=HOSTILE)
    write_report(several, tmp_path / "out", ["html", "md", "latex"])
    html, text = ((tmp_path / "out" / f"report.{end}").read_text() for end in ("html", "md"))
    assert "<script>alert" not in html
    assert "<script>alert" not in text
    assert "&lt;script&gt;" in html
    assert tables.tests_table(several) is not None


def test_the_command_writes_the_same_bytes_again(sweep, tmp_path):
    out = tmp_path / "out"
    run("report", sweep, "--output", out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    assert before.keys() == {"report.html", "report.md"}
    run("compare", sweep, "--output", out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_several_directories_need_a_folder_for_their_report(save):
    first, second = save("first"), save("second", rate="high")
    ended = invoke("report", first, second)
    assert ended.exit_code == 2
    assert "--output" in ended.stderr


def test_python_writes_the_report_of_a_sweep(sweep, tmp_path):
    assert trainer.write_report(sweep) == sweep / "report.html"
    assert trainer.write_report([sweep], output=tmp_path / "o", formats=["md"]).name == "report.md"


def test_an_unfinished_run_and_a_missing_one_are_told_from_a_folder_of_runs(save, tmp_path):
    directory = save("only")
    (directory / "results.json").unlink()
    (directory / "config.yaml").write_text("seed: 1")
    for state, hint in (("stopped", "repeat its command"), ("running", "trainer watch")):
        (directory / "status.json").write_text(json.dumps({"state": state}))
        ended = invoke("report", directory)
        assert ended.exit_code == 2
        assert f"is {state}, and a report needs a finished one" in ended.stderr
        assert hint in ended.stderr
    assert "does not exist" in invoke("report", tmp_path / "nothing").stderr


def test_a_finding_of_several_runs_is_shown_once(save, tmp_path):
    for seed in (1, 2):
        save(f"one-class-{seed}", POOR, seed=seed)
    save("good", GOOD, rate="high")
    found = [one for one in several_of((tmp_path / "runs",)).findings if one["code"] == "one-class"]
    (on_test,) = [one for one in found if one["split"] == "test"]
    assert on_test["message"].startswith("2 of 3 runs, such as: every example is predicted as")
