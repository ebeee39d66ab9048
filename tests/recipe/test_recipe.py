"""Recipes: how they are read, and what is refused with which error."""

import re
import subprocess

import pydantic
import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st
from support.paths import program

from trainer.errors import ConfigError
from trainer.recipe.data import Columns, Data, Source
from trainer.recipe.keys import differences
from trainer.recipe.reading import dump_yaml
from trainer.recipe.shipped import FOLDER, shipped_recipes
from trainer.recipe.training import Evaluation
from trainer.recipe.yaml12 import read_yaml
from trainer.tasks import TASKS
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.tasks.recipe import Recipe, load_recipe, parse_recipe

SHIPPED = sorted(shipped_recipes())


def refusal(values) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse_recipe(values, "test.yaml")
    return caught.value


def problems(values) -> str:
    return str(refusal(values))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-5", 5e-5),
        ("1e4", 1e4),
        ("1E+4", 1e4),
        (".5", 0.5),
        ("2.", 2.0),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),  # not octal
        ("1_000", "1_000"),
        ("12:30", "12:30"),  # not sexagesimal
        ("2024-01-31", "2024-01-31"),  # not a date
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("n", "n"),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("'null'", "null"),
        ("'5e-5'", "5e-5"),
        ("", None),
        ("[1, 2e3]", [1, 2000.0]),
    ],
)
def test_values_are_those_of_yaml_1_2(text, value):
    for found in (read_yaml(text, "x"), (read_yaml(f"key: {text}", "x") or {}).get("key")):
        assert found == value
        assert type(found) is type(value)


def test_numbers_without_a_dot_work_in_files_and_overrides(write_recipe, reviews_recipe):
    file = write_recipe(reviews_recipe)
    text = file.read_text()
    file.write_text(re.sub("learning_rate: .*", "learning_rate: 5e-5", text))
    assert load_recipe(str(file)).optimizer.learning_rate == 5e-5
    changed = load_recipe(str(file), ("optimizer.learning_rate=1e-3", "task.labels=[yes, no]"))
    assert changed.optimizer.learning_rate == 1e-3
    assert changed.task.labels == ("yes", "no")


def test_broken_yaml_is_named_with_its_line(tmp_path):
    file = tmp_path / "broken.yaml"
    file.write_text("seed: 1\nmodel: {name_or_path: [x\n")
    with pytest.raises(ConfigError, match=r"broken\.yaml, line \d+: not valid YAML") as caught:
        load_recipe(str(file))
    assert (caught.value.key, caught.value.value) == ("RECIPE", str(file))


@pytest.mark.parametrize("text", ["", "just words", "- a\n- b\n"])
def test_a_recipe_is_a_mapping(tmp_path, text):
    file = tmp_path / "other.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"other\.yaml is not a mapping") as caught:
        load_recipe(str(file))
    assert (caught.value.key, caught.value.value) == ("RECIPE", str(file))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_loads_and_comes_back_from_its_dump(name, tmp_path):
    recipe = load_recipe(name)
    file = tmp_path / "dumped.yaml"
    file.write_text(dump_yaml(recipe), "utf-8")
    assert load_recipe(str(file)) == recipe


def test_a_folder_of_its_name_does_not_hide_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = load_recipe("demo")
    (tmp_path / "demo").mkdir()
    assert load_recipe("demo") == before
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="is not a file"):
        load_recipe("mine")


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_opens_with_its_purpose_and_its_command(name):
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    comment = re.match(r"(?:#.*\n)+", text)
    assert comment is not None
    assert re.search(rf"-m trainer train {re.escape(name)}\b", comment.group())
    assert shipped_recipes()[name]


def test_an_unknown_recipe_names_the_nearest(tmp_path):
    absent = str(tmp_path / "absent.yaml")
    for name, words, hint in (
        ("dmeo", "there is no recipe dmeo", "did you mean demo?"),
        ("zzzzzz", "there is no recipe zzzzzz", "`trainer recipes` lists them"),
        (absent, "absent.yaml cannot be read", None),
    ):
        with pytest.raises(ConfigError, match=re.escape(words)) as caught:
            load_recipe(name)
        assert (caught.value.key, caught.value.value) == ("RECIPE", name)
        assert caught.value.hint == hint


def at(values: dict, key: str, value) -> dict:
    """Sets a dotted key."""
    *parents, leaf = key.split(".")
    section = values
    for parent in parents:
        section = section.setdefault(parent, {})
    section[leaf] = value
    return values


@pytest.mark.parametrize(
    ("key", "value", "hint"),
    [
        ("optimizer.learnig_rate", 1e-4, "did you mean optimizer.learning_rate?"),
        ("epoch", 3, None),
        ("learning_rate", 1e-4, "did you mean optimizer.learning_rate?"),
        ("batch.max_seq_lenght", 64, "did you mean batch.max_seq_length?"),
        ("data.source.num_row", 5, "did you mean data.source.num_rows?"),
    ],
)
def test_an_unknown_key_names_the_nearest(reviews_recipe, key, value, hint):
    error = refusal(at(reviews_recipe, key, value))
    assert f"{key}: unknown key" in str(error)
    assert (error.key, error.value, error.hint) == (key, value, hint)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", True),
        ("seed", "1"),
        ("seed", 1.0),
        ("seed", -1),
        ("batch.global_batch_size", 0),
        ("batch.global_batch_size", "32"),
        ("batch.micro_batch_size", True),
        ("optimizer.learning_rate", "5e-5"),
        ("optimizer.learning_rate", 0),
        ("optimizer.learning_rate", float("nan")),
        ("optimizer.learning_rate", float("inf")),  # 1e999 in a file
        ("optimizer.betas", [0.9]),
        ("optimizer.betas", [0.9, 1.0]),
        ("tuning", {"mode": "lora", "dropout": 1.0}),
        ("evaluation.baseline", 1),
        ("evaluation.baseline", "yes"),
        ("evaluation.patience", 0),
        ("data.length_bucketing", 1),
        ("data.max_rows", 1.5),
        ("model.tokenizer", 3),
        ("model.tokenizer", {"train": "wordpiece", "vocab_size": 10}),
        ("task.labels", ["a"]),
        ("task.labels", [0.5, 1]),
        ("task.class_weights", [1.0, 0.0]),
    ],
)
def test_a_wrong_type_or_value_is_named_and_never_converted(reviews_recipe, key, value):
    named = [problem.key for problem in refusal(at(reviews_recipe, key, value)).problems]
    assert named
    assert all(f"{found}.".startswith(f"{key}.") for found in named)


@pytest.mark.parametrize(
    ("task", "sections", "key", "value", "hint"),
    [
        (
            {"name": "question_answering", "stride": 32},
            {},
            "task.stride",
            32,
            "use auto, which is 10",
        ),
        ({"name": "causal_lm", "chat": True}, {}, "task.chat", True, "set task.prompt"),
        (
            {"name": "classification"},
            {"documents": "headings"},
            "data.documents",
            "headings",
            "",
        ),
        (
            {"name": "causal_lm", "prompt": "{text}", "completion": "{label}"},
            {"documents": "blank_lines"},
            "data.documents",
            "blank_lines",
            "",
        ),
    ],
)
def test_sections_that_contradict_each_other_are_named(
    reviews_recipe, task, sections, key, value, hint
):
    reviews_recipe["evaluation"] = {}
    reviews_recipe["data"] |= sections
    error = refusal(at(reviews_recipe, "task", task))
    assert (error.key, error.value) == (key, value)
    assert str(error).startswith(f"test.yaml: {key}: ")
    assert hint in str(error.hint)


@pytest.mark.parametrize("name", ["masked_lm", "causal_lm"])
def test_a_vocabulary_cannot_be_a_fresh_head(reviews_recipe, name):
    reviews_recipe["evaluation"] = {}
    fresh = at(reviews_recipe, "model.fresh_head", True)
    assert "model.fresh_head: the head of" in problems(at(fresh, "task", {"name": name}))
    assert parse_recipe(at(fresh, "task", {"name": "question_answering"}), "test").model.fresh_head


def test_sections_agree_by_default(reviews_recipe):
    reviews_recipe["evaluation"] = {}
    parse_recipe(at(reviews_recipe, "task", {"name": "question_answering"}), "test")
    for name in ("masked_lm", "causal_lm"):
        values = at(reviews_recipe, "task", {"name": name})
        parse_recipe(at(values, "data.documents", "headings"), "test")


@pytest.mark.parametrize(
    ("key", "value", "nearest"),
    [
        ("precision", "bf61", "bf16"),
        ("tuning.mode", "lorra", "lora"),
        ("optimizer.name", "adamw8bit", "adamw_8bit"),
        ("tracking.trackers", ["tensorbord"], "tensorboard"),
    ],
)
def test_a_wrong_choice_lists_them_and_names_the_nearest(reviews_recipe, key, value, nearest):
    error = refusal(at(reviews_recipe, key, value))
    assert f"{error.key}.".startswith(f"{key}.")
    assert error.value == (value[0] if isinstance(value, list) else value)
    assert error.hint == f"did you mean {nearest}?"
    assert re.search(rf"{error.value!r} is not one of .*{nearest}", str(error))


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("schedule.steps", 5, "schedule: give exactly one of epochs and steps"),
        ("schedule.epochs", None, "schedule: give exactly one of epochs and steps"),
        ("schedule.warmup_steps", 5, "schedule: give one of warmup_ratio and warmup_steps"),
        ("model.name_or_path", "bert", "model: give exactly one of name_or_path and architecture"),
        ("model.initialization", "pretrained", "set initialization: random"),
        ("model.architecture", {"hidden_size": 8}, "architecture needs a model_type"),
        ("model.tokenizer", None, "set tokenizer"),
        ("data.source.hub", "glue", "data.source: give exactly one of hub, files and builtin"),
        ("data.source.config", "sst2", "config and revision go with hub only"),
        ("data.source", {"files": {"test": "a.csv"}}, "files needs a train entry"),
        ("task.labels", ["a", "a"], "labels must differ"),
        ("task.class_weights", [1.0, 2.0, 3.0], "class_weights has 3 numbers for 2 labels"),
    ],
)
def test_values_that_cannot_go_together(reviews_recipe, key, value, sentence):
    assert sentence in problems(at(reviews_recipe, key, value))


def test_missing_sections_are_named(reviews_recipe):
    del reviews_recipe["model"], reviews_recipe["data"]["source"]
    message = problems(reviews_recipe)
    assert "model: required, and missing" in message
    assert "data.source: required, and missing" in message


def test_all_problems_are_in_one_message(reviews_recipe):
    for key, value in {
        "optimizer.learnig_rate": 1e-4,
        "batch.global_batch_size": -3,
        "precision": "int8",
        "schedule.steps": 10,
    }.items():
        at(reviews_recipe, key, value)
    message = problems(reviews_recipe)
    assert message.startswith("test.yaml: ")
    found = {
        line.strip().removeprefix("test.yaml: ").split(": ")[0] for line in message.split("\n")
    }
    assert found == {
        "optimizer.learnig_rate",
        "batch.global_batch_size",
        "precision",
        "schedule",
    }


def test_a_problem_inside_a_choice_of_types_has_the_key_that_the_file_has(reviews_recipe):
    at(reviews_recipe, "data.split.validation", {"ratio": 2.0, "seed": 1})
    assert "data.split.validation.ratio: 2.0: " in problems(reviews_recipe)


@pytest.mark.parametrize(
    ("override", "key", "value", "words"),
    [
        ("seed", "--set", "seed", "write it as key.path=value"),
        ("=3", "--set", "=3", "write it as key.path=value"),
        ("seed.inner=3", "seed.inner", 1, "seed is a value, not a section"),
        ("seed=[1", "--set", "seed=[1", "not valid YAML"),
        ("batch.micro_batchsize=4", "batch.micro_batchsize", 4, "mean batch.micro_batch_size?"),
        ("seed=yes", "seed", "yes", "seed: 'yes': "),
    ],
)
def test_a_wrong_override_is_named(override, key, value, words):
    with pytest.raises(ConfigError, match=re.escape(words)) as caught:
        load_recipe("demo", (override,))
    assert (caught.value.key, caught.value.value) == (key, value)


def test_overrides_make_sections_and_the_last_one_holds():
    recipe = load_recipe("demo", ("data.split.test=null", "seed=2", "seed=3", "data.max_rows=8"))
    assert (recipe.seed, recipe.data.max_rows, recipe.data.split.test) == (3, 8, None)


def test_a_recipe_cannot_be_changed():
    recipe = load_recipe("demo")
    with pytest.raises(pydantic.ValidationError, match="frozen"):
        recipe.batch.global_batch_size = 3  # type: ignore[misc]


def test_differences_are_dotted_keys_with_both_values():
    one = load_recipe("demo")
    assert differences(one, load_recipe("demo")) == {}
    other = load_recipe("demo", ("seed=5", "data.split.validation={ratio: 0.5}"))
    assert differences(one, other) == {
        "seed": (1, 5),
        "data.split.validation": ("auto", None),
        "data.split.validation.ratio": (None, 0.5),
        "data.split.validation.seed": (None, 1),
    }


def test_relative_paths_become_absolute(reviews_recipe, tmp_path, monkeypatch):
    (tmp_path / "bert").mkdir()
    (tmp_path / "corpus").mkdir()
    monkeypatch.chdir(tmp_path)
    reviews_recipe["model"] = {"name_or_path": "bert", "tokenizer": "google/bert"}
    reviews_recipe["data"]["source"] = {"files": {"train": ["a.csv", "b.csv"], "test": "c.csv"}}
    recipe = parse_recipe(reviews_recipe, "x")
    assert recipe.model.name_or_path == str(tmp_path / "bert")
    assert recipe.model.tokenizer == "google/bert"  # no folder here: a hub name
    assert recipe.data.source.files == {
        "train": (str(tmp_path / "a.csv"), str(tmp_path / "b.csv")),
        "test": str(tmp_path / "c.csv"),
    }
    reviews_recipe["data"]["source"] = {"hub": "corpus"}
    assert parse_recipe(reviews_recipe, "x").data.source.hub == str(tmp_path / "corpus")


printable = st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]))


@given(st.lists(printable, min_size=2, unique=True))
@example(["1e5", "09"])  # numbers to YAML 1.2 only: the writer has to quote them
@example(["yes", "no"])
@example(["1_000", "12:30"])
@example(["null", "true"])
def test_any_text_comes_back_from_a_dump(labels):
    values = {"model": {"name_or_path": "x"}, "data": {"source": {"builtin": "reviews"}}}
    recipe = parse_recipe({**values, "task": {"name": "classification", "labels": labels}}, "x")
    assert parse_recipe(read_yaml(dump_yaml(recipe), "x"), "x") == recipe


@given(st.floats(min_value=0, exclude_min=True, allow_infinity=False, allow_nan=False))
def test_any_number_comes_back_from_a_dump(rate):
    values = {"model": {"name_or_path": "x"}, "data": {"source": {"builtin": "reviews"}}}
    values |= {"task": {"name": "classification"}, "optimizer": {"learning_rate": rate}}
    recipe = parse_recipe(values, "x")
    assert parse_recipe(read_yaml(dump_yaml(recipe), "x"), "x") == recipe


@pytest.mark.parametrize(
    ("prompt", "problem"),
    [
        ("say it", "names no column"),
        ("{} {a}", "nothing but the name of a column"),
        ("{a!r}", "nothing but the name of a column"),
        ("{a:>5}", "nothing but the name of a column"),
        ("{a", "is not a template"),
    ],
)
def test_a_template_that_cannot_be_filled_is_refused(prompt, problem):
    values = {
        "model": {"name_or_path": "gpt2"},
        "task": {"name": "causal_lm", "prompt": prompt, "completion": "{b} {{kept}}"},
        "data": {"source": {"builtin": "instructions"}},
    }
    with pytest.raises(ConfigError, match=f"task: .*{problem}"):
        parse_recipe(values, "recipe")
    values["task"]["prompt"] = "{a.b}: "
    assert parse_recipe(values, "recipe").task.template_columns() == [
        ("prompt", "a.b"),
        ("completion", "b"),
    ]


IN_PYTHON = {
    "model": {"name_or_path": "x"},
    "task": {"name": "classification", "labels": ["a", "b"]},
    "data": {"source": {"files": {"train": ["rows.csv"]}}},
    "optimizer": {"betas": [0.9, 0.95]},
}


@pytest.mark.parametrize("task", TASKS)
def test_a_recipe_built_in_python_equals_the_one_in_a_file(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    values = {**IN_PYTHON, "task": {"name": task}}
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(values), "utf-8")
    built, read = Recipe(**values), load_recipe(str(file))
    assert built == read
    assert isinstance(read, Recipe)
    assert dump_yaml(built) == dump_yaml(read)
    assert built.model.name_or_path == str(tmp_path / "x")
    assert built.data.source.files == {"train": (str(tmp_path / "rows.csv"),)}
    decides = {"classification": ("accuracy", "max"), "question_answering": ("best_f1", "max")}
    found = built.evaluation.metric, built.evaluation.mode
    assert found == decides.get(task, ("loss", "min"))


def test_sections_may_also_be_objects():
    columns = Columns(text="sentence")
    source = Source(builtin="reviews")
    given = IN_PYTHON | {"data": Data(source=source, columns=columns)}
    mapping = {"source": {"builtin": "reviews"}, "columns": {"text": "sentence"}}
    assert Recipe(**given) == Recipe(**IN_PYTHON | {"data": mapping})
    settings = ClassificationSettings(name="classification", labels=("a", "b"))
    assert Recipe(**IN_PYTHON | {"task": settings}) == Recipe(**IN_PYTHON)


@pytest.mark.parametrize(
    ("given", "metric", "mode"),
    [
        ({}, "accuracy", "max"),
        ({"every": 5}, "accuracy", "max"),
        ({"metric": "loss"}, "loss", "min"),
        ({"metric": "f1_macro"}, "f1_macro", "max"),
        ({"mode": "min"}, "accuracy", "min"),
    ],
)
def test_metric_and_mode_that_a_recipe_leaves_out_are_those_of_its_task(given, metric, mode):
    for evaluation in (given, Evaluation(**given)):
        found = Recipe(**IN_PYTHON, evaluation=evaluation).evaluation
        assert (found.metric, found.mode) == (metric, mode)


def test_a_wrong_recipe_in_python_is_a_config_error_with_each_problem():
    with pytest.raises(ConfigError) as caught:
        Recipe(**IN_PYTHON | {"seed": "1", "tasks": 3, "precision": "bf61"})
    problems = {problem.key: problem for problem in caught.value.problems}
    assert set(problems) == {"seed", "tasks", "precision"}
    assert problems["seed"].value == "1"
    assert problems["tasks"].hint == "did you mean task?"
    assert problems["precision"].hint == "did you mean bf16?"
    assert caught.value.key == "seed"
    for problem in problems.values():
        assert str(problem) in str(caught.value)


def test_an_override_leaves_what_an_alias_shares(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "model: {name_or_path: x}\ntask: {name: masked_lm}\n"
        "data: {source: {builtin: documents}, split: {validation: &part {ratio: 0.5}, test: *part}}"
    )
    split = load_recipe(str(file), ("data.split.test.seed=7",)).data.split
    assert (split.validation.seed, split.test.seed) == (1, 7)


@pytest.mark.parametrize(
    ("task", "key", "value", "hint"),
    [
        ("clasification", "task.name", "clasification", "did you mean classification?"),
        ("zzz", "task.name", "zzz", "use classification, masked_lm, causal_lm, question_answering"),
        (3, "task.name", 3, None),
    ],
)
def test_a_task_that_does_not_exist_is_named(task, key, value, hint):
    with pytest.raises(ConfigError) as caught:
        Recipe(**IN_PYTHON | {"task": {"name": task, "labels": ["a", "b"]}})
    (problem,) = caught.value.problems
    assert (problem.key, problem.value, problem.hint) == (key, value, hint)


def test_a_recipe_is_read_without_torch():
    done = subprocess.run(program("heavy_imports", "recipe"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["pydantic", "yaml"]
