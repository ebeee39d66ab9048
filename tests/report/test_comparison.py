"""The comparison of runs: groups, means and standard deviations, what it says and refuses."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.command_line import invoke

from trainer.errors import ConfigError, RunDirectoryError
from trainer.process.status import Status
from trainer.report.comparison.compare import compare, markdown

RECIPE: dict[str, Any] = {
    "seed": 1,
    "model": {"name_or_path": "bert", "initialization": "pretrained", "tokenizer": None},
    "data": {"source": {"seed": 1}, "split": {"validation": {"ratio": 0.2, "seed": 1}}},
    "optimizer": {"learning_rate": 2e-5},
    "evaluation": {"metric": "accuracy", "mode": "max"},
}


def write_run(
    directory: Path,
    settings: dict[str, Any] | None = None,
    *,
    test: float | None,
    validation: float = 0.5,
) -> Path:
    """Writes the results of a run whose recipe differs in some settings, by dotted key."""
    recipe = copy.deepcopy(RECIPE)
    for name, value in (settings or {}).items():
        *parents, leaf = name.split(".")
        section = recipe
        for parent in parents:
            section = section[parent]
        section[leaf] = value
    metrics = {"validation": measured(validation)}
    if test is not None:
        metrics["test"] = measured(test)
    results = {
        "recipe": recipe,
        "baseline": {split: measured(0.25) for split in metrics},
        "best": {"step": 10 * recipe["seed"], "epoch": 1, "metrics": metrics},
        "final": {"step": 99, "epoch": 9, "metrics": {"validation": measured(0.0)}},
        "seconds": {"total": 100.0 + recipe["seed"]},
        "peak_memory_bytes": 300 * 2**20,
        "scales": {"accuracy": "0-1"},
    }
    directory.mkdir(parents=True)
    (directory / "results.json").write_text(json.dumps(results))
    return directory


def measured(accuracy: float) -> dict[str, Any]:
    return {
        "loss": 1 - accuracy,
        "accuracy": accuracy,
        "num_tokens": 7,
        "finite": True,
        "matching": "exact",
        "per_class": {"a": {"f1": accuracy}},
        "seconds": 1.5,
    }


def edit_results(directory: Path, change) -> None:
    file = directory / "results.json"
    results = json.loads(file.read_text())
    change(results)
    file.write_text(json.dumps(results))


@pytest.fixture
def parent(tmp_path) -> Path:
    """Three seeds of two groups: test accuracy 0.80, 0.82, 0.84 and 0.60, 0.61, 0.65."""
    values = {"pretrained": (0.80, 0.82, 0.84), "random": (0.60, 0.61, 0.65)}
    for initialization, accuracies in values.items():
        for seed, accuracy in enumerate(accuracies, start=1):
            write_run(
                tmp_path / "sweep" / f"initialization={initialization},seed={seed}",
                {"seed": seed, "model.initialization": initialization},
                test=accuracy,
                validation=accuracy + 0.1,
            )
    return tmp_path / "sweep"


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_seeds_form_groups_with_mean_and_sample_deviation(parent):
    comparison = compare((parent,))
    assert comparison["metric"] == "accuracy"
    one, two = comparison["groups"]
    assert one["label"] == "model.initialization=pretrained"
    assert two["values"] == {"model.initialization": "random"}
    assert one["seeds"] == two["seeds"] == [1, 2, 3]
    assert one["runs"] == [str(parent / f"initialization=pretrained,seed={n}") for n in (1, 2, 3)]
    summary = one["test"]["accuracy"]
    assert (summary["n"], summary["values"]) == (3, [0.80, 0.82, 0.84])
    assert summary["mean"] == pytest.approx(0.82)
    assert summary["std"] == pytest.approx(0.02)
    assert two["test"]["accuracy"]["mean"] == pytest.approx(0.62)
    assert two["test"]["accuracy"]["std"] == pytest.approx(0.0007**0.5)
    assert one["validation"]["accuracy"]["mean"] == pytest.approx(0.92)
    assert one["baseline"]["test"]["accuracy"]["mean"] == 0.25
    steps = one["best_step"]
    assert (steps["mean"], steps["std"], steps["values"]) == (20.0, 10.0, [10, 20, 30])
    half = 4.302653 * 10 / 3**0.5  # the quantile of t with 2 degrees of freedom
    assert (steps["low"], steps["high"]) == pytest.approx((20 - half, 20 + half), abs=1e-4)
    assert one["seconds"]["mean"] == 102
    assert one["peak_memory_bytes"]["std"] == 0
    assert one["zero_shot"] == {}
    assert comparison["warnings"] == []


def test_numbers_are_summarised_and_the_deciding_one_comes_first(parent):
    group = compare((parent,))["groups"][0]
    assert list(group["test"]) == ["accuracy", "loss", "num_tokens"]
    shown = table_rows(markdown(compare((parent,))))
    assert [row[0] for row in shown[2:6]] == ["accuracy", "accuracy", "loss", "loss"]


def test_seeds_of_data_are_settings_like_others(tmp_path):
    for name, settings in {
        "a": {},
        "b": {"data.source.seed": 2},
        "c": {"data.split.validation.seed": 2},
    }.items():
        write_run(tmp_path / name, settings, test=0.5)
    labels = [group["label"] for group in compare((tmp_path,))["groups"]]
    assert labels == [
        "data.source.seed=1, data.split.validation.seed=1",
        "data.source.seed=2, data.split.validation.seed=1",
        "data.source.seed=1, data.split.validation.seed=2",
    ]


def test_a_key_that_only_some_recipes_have_tells_their_groups(tmp_path):
    write_run(tmp_path / "a", test=0.5)
    write_run(tmp_path / "b", {"model.tokenizer": {"train": "bpe"}}, test=0.5)
    write_run(tmp_path / "c", {"extra": None}, test=0.5)
    labels = [group["label"] for group in compare((tmp_path,))["groups"]]
    assert labels == [
        "model.tokenizer=null",
        "model.tokenizer.train=bpe",
        "model.tokenizer=null, extra=null",
    ]


def test_a_group_that_only_lacks_a_key_has_a_label(tmp_path):
    write_run(tmp_path / "a", test=0.5)
    write_run(tmp_path / "b", {"extra": 3}, test=0.5)
    assert [one["label"] for one in compare((tmp_path,))["groups"]] == ["extra=null", "extra=3"]


def test_by_a_value_a_section_and_the_seed(parent):
    groups = compare((parent,), "model.initialization")["groups"]
    assert [group["label"] for group in groups] == [
        "model.initialization=pretrained",
        "model.initialization=random",
    ]
    groups = compare((parent,), "model")["groups"]
    assert [group["values"]["model.initialization"] for group in groups] == ["pretrained", "random"]
    comparison = compare((parent,), "seed")
    assert [group["label"] for group in comparison["groups"]] == ["seed=1", "seed=2", "seed=3"]
    assert comparison["groups"][0]["test"]["accuracy"]["values"] == [0.80, 0.60]
    assert comparison["warnings"] == [
        "runs of the same group also differ in model.initialization, "
        "so its spread is not that of seeds alone"
    ]


@pytest.mark.parametrize(
    ("by", "hint"),
    [
        ("model.initialisation", "did you mean model.initialization?"),
        ("learning_rate", "did you mean optimizer.learning_rate?"),
        ("xyz", "config.yaml of a run lists them"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(by, hint, parent):
    with pytest.raises(ConfigError) as caught:
        compare((parent,), by)
    assert str(caught.value) == f"--by {by}: no recipe has this key; {hint}"


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        (
            (0.60, 0.61, 0.65),
            "is 0.2000 better than that of optimizer.learning_rate=0.1, "
            "more than the spread (standard deviation 0.0265)",
        ),
        (
            (0.79, 0.81, 0.83),
            "is 0.0100 better than that of optimizer.learning_rate=0.1, "
            "within the spread (standard deviation 0.0200)",
        ),
    ],
)
@pytest.mark.parametrize("has_test", [True, False])
def test_a_difference_is_weighed_against_the_spread(other, sentence, has_test, tmp_path):
    for rate, values in {2e-5: (0.80, 0.82, 0.84), 0.1: other}.items():
        for seed, value in enumerate(values):
            write_run(
                tmp_path / f"{rate}-{seed}",
                {"seed": seed, "optimizer.learning_rate": rate},
                test=value if has_test else None,
                validation=value,
            )
    split = "test" if has_test else "validation"
    comparison = compare((tmp_path,))
    best = "optimizer.learning_rate=2e-05"
    assert comparison["findings"] == [f"{split} accuracy of {best} {sentence}"]
    assert f"- {split} accuracy of {best} {sentence}" in markdown(comparison)


def test_of_a_loss_the_smaller_is_the_better(tmp_path):
    by_loss = {"evaluation": {"metric": "loss", "mode": "min"}}
    for name, value in {"a": 0.1, "b": 0.9}.items():
        for seed in (1, 2):
            settings = {"seed": seed, "model.name_or_path": name, **by_loss}
            write_run(tmp_path / f"{name}{seed}", settings, test=value + seed / 100)
    (finding,) = compare((tmp_path,))["findings"]
    assert finding.startswith("test loss of model.name_or_path=b is 0.8000 better")


def test_single_runs_have_no_spread(tmp_path):
    write_run(tmp_path / "a", test=0.5)
    write_run(tmp_path / "b", {"model.initialization": "random"}, test=0.9)
    comparison = compare((tmp_path,))
    (finding,) = comparison["findings"]
    assert finding.startswith("a spread needs several seeds")
    assert comparison["groups"][0]["test"]["accuracy"]["std"] is None
    cells = table_rows(markdown(comparison))[2]
    assert cells[2:] == ["0.2500 → 0.5000 (1)", "0.2500 → 0.5000 (1)"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"seed": 3}, "the groups have different seeds: 1, 2; 1, 3"),
        (
            {"evaluation": {"metric": "loss", "mode": "min"}},
            "the best steps were chosen by different metrics, accuracy and loss; "
            "groups are compared by accuracy",
        ),
    ],
)
def test_what_does_not_compare_is_said(settings, sentence, tmp_path):
    write_run(tmp_path / "a", test=0.5)
    write_run(tmp_path / "b", {"seed": 2}, test=0.6)
    other = {"model.initialization": "random", **settings}
    write_run(tmp_path / "c", other | {"seed": 1}, test=0.5)
    write_run(tmp_path / "d", {"seed": 2} | other, test=0.5)
    assert compare((tmp_path,))["warnings"] == [sentence]


def test_scales_and_repeated_seeds_are_said(tmp_path):
    write_run(tmp_path / "a", test=0.5)
    other = write_run(tmp_path / "b", test=0.5)
    edit_results(other, lambda results: results.update(scales={"accuracy": "0-100", "f1": "0-1"}))
    assert compare((tmp_path,))["warnings"] == [
        "a group holds the same seed twice, which makes its spread too small",
        "accuracy has the scales 0-1 and 0-100",
    ]


def test_zero_shot_has_its_columns(parent):
    child = parent / "initialization=pretrained,seed=1"
    scores = {"test": {"accuracy": 0.55, "seconds": 3.0}}
    edit_results(child, lambda results: results.update(zero_shot=scores))
    comparison = compare((parent,))
    assert comparison["groups"][0]["zero_shot"]["test"]["accuracy"]["values"] == [0.55]
    titles, _, first, second, *_ = table_rows(markdown(comparison))
    assert titles == ["metric", "group", "zero-shot test", "validation", "test"]
    assert first[2:] == [
        "0.5500 (1)",
        "0.2500 → 0.9200 ± 0.0200 (3)",
        "0.2500 → 0.8200 ± 0.0200 (3)",
    ]
    assert second[2] == ""


def test_what_is_no_finite_number_is_left_out(tmp_path):
    write_run(tmp_path / "a", test=float("inf"))
    write_run(tmp_path / "b", {"seed": 2}, test=0.5)
    (group,) = compare((tmp_path,))["groups"]
    assert group["test"]["accuracy"]["values"] == [0.5]


def test_long_labels_are_given_below_the_table(tmp_path):
    for name, prompt in {"a": "x" * 80, "b": "one | two\nthree"}.items():
        write_run(tmp_path / name, {"prompt": prompt}, test=0.5)
    text = markdown(compare((tmp_path,)))
    assert {row[1] for row in table_rows(text)[2:4]} == {"group 1", "group 2"}
    assert f"- group 1: prompt={'x' * 80}" in text
    assert r'- group 2: prompt="one \| two\\nthree"' in text


def test_it_prints_tables_that_are_aligned_or_one_json_object(parent):
    text = invoke("compare", parent).output
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 2
    assert all(len({len(line) for line in block}) == 1 for block in blocks)
    assert f"tensorboard --logdir {parent}\n" in text
    assert ["model.initialization=random", "1, 2, 3", "20.0 ± 10.0", "102.0 ± 1.0", "300 ± 0"] in (
        table_rows(text)
    )
    printed = invoke("compare", "--json", parent)
    assert printed.exit_code == 0
    assert json.loads(printed.output) == compare((parent,))


def test_runs_are_found_once_and_unfinished_ones_are_named(parent):
    for name, state in {"x": "stopped", "y": "running"}.items():
        (parent / name).mkdir()
        Status(parent / name).write(state, None, 3, "")
    (parent / "notes").mkdir()
    (parent / "file").touch()
    child = parent / "initialization=random,seed=1"
    comparison = compare((child, parent))
    assert [len(group["runs"]) for group in comparison["groups"]] == [3, 3]
    assert comparison["warnings"] == [
        f"left out, because it has not finished: {parent}/x (stopped)",
        f"left out, because it has not finished: {parent}/y (running)",
    ]
    assert comparison["tensorboard"] == str(parent)


def test_without_a_finished_run_there_is_one_sentence(tmp_path):
    with pytest.raises(RunDirectoryError) as caught:
        compare((tmp_path / "nowhere",))
    assert caught.value.key == str(tmp_path / "nowhere")
    assert caught.value.hint == "name the directory of a run or a sweep"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.yaml").touch()
    with pytest.raises(RunDirectoryError, match=r"no finished run, only .*/a \(not begun\); name"):
        compare((tmp_path,))
    with pytest.raises(RunDirectoryError) as caught:
        compare((tmp_path / "a",))
    assert caught.value.key == str(tmp_path / "a")


@pytest.mark.parametrize(
    ("text", "missing", "words"),
    [
        ("{", None, "cannot be read"),
        ("[]", "recipe", "has no recipe"),
        ('{"recipe": {}}', "baseline", "has no baseline"),
    ],
)
def test_broken_results_are_one_sentence(text, missing, words, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(text)
    with pytest.raises(RunDirectoryError, match=words) as caught:
        compare((tmp_path,))
    assert (caught.value.key, caught.value.value) == (str(file), missing)
    assert (caught.value.hint or "").startswith("leave this run out")


def test_runs_of_earlier_versions_stand_in_one_group_with_the_macro_averages_of_today(tmp_path):
    """Those had no task.check_labels, and counted classes that never occur."""
    per_class = {
        "a": {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "support": 4, "predicted": 2},
        "b": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0, "predicted": 0},
    }
    for seed, task, f1 in ((1, {}, 1 / 3), (2, {"check_labels": True}, 2 / 3)):
        run = write_run(tmp_path / f"{seed}", {"seed": seed}, test=None)
        metrics = {"f1_macro": f1, "per_class": per_class}

        def change(results, task=task, metrics=metrics) -> None:
            results["recipe"]["task"] = {"name": "classification", **task}
            results["best"]["metrics"]["validation"] |= metrics

        edit_results(run, change)
    (group,) = compare((tmp_path,))["groups"]
    assert group["validation"]["f1_macro"]["values"] == [2 / 3, 2 / 3]


def test_runs_from_before_modes_had_keys_of_their_own_are_in_one_group(tmp_path: Path) -> None:
    older = {"mode": "full", "r": 16, "alpha": 32, "dropout": 0.05, "bias": "none"}
    runs = [
        write_run(tmp_path / "older", {"tuning": older}, test=0.5),
        write_run(tmp_path / "newer", {"tuning": {"mode": "full"}, "seed": 2}, test=0.6),
    ]
    assert len(compare(tuple(runs))["groups"]) == 1


def test_the_mode_alone_names_groups_that_it_tells_apart(tmp_path: Path) -> None:
    sections = [
        {"mode": "full"},
        {"mode": "lora", "r": 16, "alpha": 32},
        {"mode": "qlora", "r": 16, "alpha": 32},
    ]
    runs = [
        write_run(tmp_path / tuning["mode"], {"tuning": tuning}, test=0.5) for tuning in sections
    ]
    groups = compare(tuple(runs))["groups"]
    assert [group["name"] for group in groups] == [
        f"tuning.mode={tuning['mode']}" for tuning in sections
    ]
