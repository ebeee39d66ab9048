"""What a recipe needs, and what is wrong with its data, provoked by data that are wrong."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support import step_recipes
from support.tiny_models import architectures, save_backbones

from trainer.assembly.inputs import build_inputs
from trainer.doctor.launch import about_launch
from trainer.doctor.needs import about_needs
from trainer.doctor.preflight import about_data
from trainer.doctor.targets import about_targets
from trainer.tasks.causal_lm.task import CausalLM
from trainer.tasks.recipe import parse_recipe

GOOD = [{"text": f"film number {index} is good", "label": "good"} for index in range(40)]
BAD = [{"text": f"play number {index} is bad", "label": "bad"} for index in range(40)]
ROWS = [row for pair in zip(GOOD, BAD, strict=True) for row in pair]
OTHERS = [
    {"text": f"a song called {index}", "label": ["good", "bad"][index % 2]} for index in range(8)
]


@pytest.fixture
def recipe_of(reviews_recipe, tmp_path):
    """Makes a recipe of rows for each split: (train, test, key="section.name" values)."""

    def make(train=ROWS, test=OTHERS, **changes):
        files = {}
        for name, rows in {"train": train, "validation": OTHERS, "test": test}.items():
            files[name] = str(tmp_path / f"{name}.jsonl")
            Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
        values = {
            **reviews_recipe,
            "task": {"name": "classification", "labels": ["good", "bad"]},
            "data": {"source": {"files": files}},
        }
        for key, value in changes.items():
            section, _, name = key.partition("__")
            values[section] = {**values[section], name: value} if name else value
        return parse_recipe(values, "the recipe")

    return make


def examined(recipe):
    """Returns the findings on the data of a recipe by their codes, the first of each."""
    found = {}
    for finding in about_data(recipe, readable=True):
        found.setdefault(finding.code, finding)
    return found


def instructions(**task):
    values = step_recipes.of_task("instructions")
    values["task"] = {**values["task"], **task}
    return parse_recipe(values, "the recipe")


def test_sound_data_are_fine(recipe_of):
    found = examined(recipe_of())
    assert {finding.level for finding in found.values()} == {"fine"}
    assert found.keys() == {"no-overlap", "classes", "lengths", "padding"}
    assert found["classes"].figures == {"good": 40, "bad": 40}


def test_every_task_that_ships_has_sound_data():
    for task in step_recipes.TASKS:
        found = examined(parse_recipe(step_recipes.of_task(task), "the recipe"))
        wrong = {"masked-rows", "padding-learned", "padding-token-learned", "not-examined"}
        assert not wrong & found.keys(), task
        assert {"lengths", "padding"} <= found.keys()


def test_rows_of_the_test_that_occur_in_training_are_numbered(recipe_of):
    test = [
        *OTHERS,
        {"text": GOOD[3]["text"], "label": "good"},
        {"text": "FILM, number 5\u00a0is: GOOD!", "label": "good"},
        {"text": "ﬁlm number 7 is good", "label": "good"},  # a ligature, which NFKC takes apart
    ]
    found = {f.message.split()[-1]: f for f in about_data(recipe_of(test=test), readable=True)}
    (shared,) = [f for f in found.values() if f.code == "seen-in-training"]
    assert shared.level == "warning"
    assert shared.message == (
        "1 of 11 test rows occur in training, 3 if only letters and digits count (27.3%): test "
        "rows 9 = train 7, 10 = train 11, 11 = train 15"
    )
    assert shared.figures["rows"] == [(9, 7), (10, 11), (11, 15)]


def test_few_shared_rows_are_a_note_and_repeated_ones_too(recipe_of):
    test = [{"text": f"song {index}", "label": "good"} for index in range(150)]
    found = examined(recipe_of(train=[*ROWS, *ROWS], test=[*test, ROWS[0]]))
    assert found["seen-in-training"].level == "note"
    assert found["seen-in-training"].message.endswith("test row 151 = train 1")
    assert found["repeated-rows"].figures == {"rows": 80, "of": 160}


def test_labels_that_do_not_occur_are_named(recipe_of):
    recipe = recipe_of(task__labels=["good", "bad", "mixed"])
    found = [f for f in about_data(recipe, readable=True) if f.code == "absent-label"]
    assert [(f.level, f.figures["split"]) for f in found] == [
        ("warning", "train"),
        ("note", "validation"),
        ("note", "test"),
    ]
    assert found[0].message == "no train row has the label mixed"
    test = [*OTHERS, {"text": "so so", "label": "mixed"}]
    measured = examined(recipe_of(test=test, task__labels=["good", "bad", "mixed"]))
    assert measured["absent-label"].message.endswith(
        "and test rows have it: those can never be right"
    )


def test_classes_out_of_balance_are_named(recipe_of):
    many = [{"text": f"film number {index} is good", "label": "good"} for index in range(400)]
    found = examined(recipe_of(train=[*many, *BAD[:3]]))
    assert found["rare-class"].figures == {"bad": 3}
    assert found["dominant-class"].figures == {"good": 400}
    assert found["dominant-class"].message.startswith("99.3% of the train rows have the label good")
    assert not {"rare-class", "dominant-class"} & examined(recipe_of()).keys()


def test_what_is_truncated_and_how_long_examples_are(recipe_of):
    long = [{"text": "word " * 50, "label": "good"} for _ in range(20)]
    found = examined(recipe_of(train=[*ROWS, *long], batch__max_seq_length=16))
    assert found["truncated"].level == "warning"
    assert found["truncated"].figures["truncated"] == 20
    assert found["truncated"].message.startswith("20 of 100 train examples (20.0%) are cut to 16")
    assert found["lengths"].figures["1"] == 16
    few = examined(recipe_of(train=[*ROWS, long[0]], batch__max_seq_length=16))
    assert few["truncated"].level == "note"


def test_the_padding_of_batches_is_that_of_the_order(recipe_of):
    rows = [
        {"text": " ".join(["good"] * (1 + index % 20)), "label": "good"} for index in range(128)
    ]
    sorted_by_length = examined(recipe_of(train=rows))["padding"]
    plain = examined(recipe_of(train=rows, data__length_bucketing=False))["padding"]
    assert sorted_by_length.level == "fine"
    assert plain.level == "note"
    assert plain.advice == "set data.length_bucketing: true"
    assert sorted_by_length.figures["share"] < plain.figures["share"] / 3


def test_rows_that_cannot_be_used_are_counted_and_the_others_examined(recipe_of):
    wrong = [{"text": "x", "label": "goood"}, {"text": "", "label": "bad"}]
    found = examined(recipe_of(train=[*ROWS, *wrong]))
    assert found["bad-rows"].level == "failure"
    assert "row 81: the label 'goood' is not one of" in found["bad-rows"].message
    assert found["bad-rows"].message.endswith("(rows that cannot be used: 2 train)")
    assert found["lengths"].level == "fine"
    skipped = examined(recipe_of(train=[*ROWS, *wrong], data__on_bad_example="skip"))
    assert "bad-rows" not in skipped
    assert "2 bad train examples were skipped" in skipped["note-on-data"].message


def test_data_that_cannot_be_read_raise_what_a_run_would(recipe_of):
    from trainer.errors import DataError

    recipe = recipe_of(data__columns={"label": "none"})
    with pytest.raises(DataError, match="has no column none"):
        examined(recipe)


def test_text_of_the_data_is_shortened_and_escaped(recipe_of, write_recipe):
    from trainer.doctor.examination import Examined

    wrong = [{"text": "x", "label": "\x1b[31m" + "y" * 10_000}]
    found = examined(recipe_of(train=[*ROWS, *wrong]))["bad-rows"]
    assert len(found.message) < 600
    shown = Examined("data", (found,)).as_text()
    assert "\x1b" not in shown
    assert "\\x1b" in shown


class Masked(CausalLM):
    """Forgets the targets of the first three examples."""

    def collate(self, split, ids, epoch):
        batch = super().collate(split, ids, epoch)
        batch.targets["labels"][ids < 3] = -100
        return batch


class Unpadded(CausalLM):
    """Gives padded positions a target."""

    def collate(self, split, ids, epoch):
        batch = super().collate(split, ids, epoch)
        if "attention_mask" in batch.inputs:
            batch.targets["labels"][batch.inputs["attention_mask"] == 0] = 0
        return batch


def with_task(kind, recipe):
    inputs = build_inputs(recipe, None)
    rows = inputs.splits["train"].rows
    task = kind.build(recipe, rows, inputs.tokenizer, inputs.model_config)
    found = list(about_targets(replace(inputs, task=task)))
    return {finding.code: finding for finding in reversed(found)}  # those of train


def test_examples_whose_every_target_is_masked_are_named():
    recipe = instructions()
    assert not with_task(CausalLM, recipe)
    found = with_task(Masked, recipe)["masked-rows"]
    assert found.level == "warning"
    assert found.figures["examples"] == 3
    assert "such as rows 1, 2 and 3" in found.message


def test_padding_that_is_learned_is_a_failure():
    found = with_task(Unpadded, instructions())
    assert found.keys() == {"padding-learned"}
    assert found["padding-learned"].level == "failure"


def test_padding_of_packed_sequences_is_looked_at_too():
    recipe = parse_recipe(step_recipes.of_task("packed"), "the recipe")

    class Packed(CausalLM):
        def collate(self, split, ids, epoch):
            batch = super().collate(split, ids, epoch)
            batch.targets["labels"][:] = 5
            return batch

    assert not with_task(CausalLM, recipe)
    assert "padding-learned" in with_task(Packed, recipe)


def test_a_padding_token_in_the_text_is_learned(tmp_path):
    values = step_recipes.of_task("instructions")
    recipe = parse_recipe(values, "the recipe")
    pad = build_inputs(recipe, None).tokenizer.pad_token
    rows = [{"instruction": f"say {i}", "input": "", "output": f"{i} {pad} is"} for i in range(30)]
    file = tmp_path / "train.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    values["data"] = {"source": {"files": {"train": str(file)}}, "special_tokens": "parsed"}
    inputs = build_inputs(parse_recipe(values, "the recipe"), None)
    if inputs.tokenizer.pad_token_id == inputs.tokenizer.eos_token_id:
        pytest.skip("this tokenizer pads with its end")
    found = next(about_targets(inputs))
    assert (found.code, found.figures["of"]) == ("padding-token-learned", 27)


@pytest.mark.parametrize("variable", ["TRAINER_CACHE", "HF_DATASETS_CACHE"])
def test_caches_that_cannot_be_written_are_failures_and_the_data_examined(
    variable, recipe_of, tmp_path, monkeypatch
):
    from datasets import config

    (tmp_path / "file").touch()
    place = tmp_path / "file" / "cache"
    recipe = recipe_of(train=[*ROWS, {"text": "another", "label": "good"}])
    if variable == "TRAINER_CACHE":
        monkeypatch.setenv(variable, str(place))
    else:
        monkeypatch.setattr(config, variable, str(place))  # which the library reads once
    found = examined(recipe)
    assert found["unwritable-cache"].level == "failure"
    assert str(place) in found["unwritable-cache"].message
    assert found["classes"].figures == {"good": 41, "bad": 40}
    assert (tmp_path / "file").is_file()


@pytest.fixture(scope="module")
def cached_model(own_caches, tmp_path_factory):
    """The cached folder of a hub model, some/doctored, as the hub's client lays it out."""
    texts = [row["text"] for row in ROWS]
    made = save_backbones(tmp_path_factory.mktemp("made"), {"bert": architectures()["bert"]}, texts)
    repository = own_caches / "huggingface" / "hub" / "models--some--doctored"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    snapshot = repository / "snapshots" / ("0" * 40)
    shutil.copytree(made["bert"], snapshot)
    yield snapshot
    shutil.rmtree(repository)


def needs(recipe):
    return {finding.code: finding for finding in about_needs(recipe, "mine.yaml")}


def pretrained(recipe_of, name):
    return recipe_of(model={"name_or_path": str(name)})


def test_what_lies_in_the_caches_is_fine(recipe_of, cached_model):
    found = needs(pretrained(recipe_of, "some/doctored"))
    assert {finding.level for finding in found.values()} == {"fine"}
    assert found.keys() == {"data", "tokenizer", "configuration", "weights"}
    assert found["configuration"].message == "configuration: a bert"
    assert found["weights"].message.endswith("in 1 file")
    assert needs(pretrained(recipe_of, cached_model)).keys() == found.keys()


def test_weights_that_are_not_cached_are_a_failure_offline_only(
    recipe_of, cached_model, monkeypatch
):
    from datasets import config
    from huggingface_hub import constants

    weights = cached_model / "model.safetensors"
    weights.rename(cached_model / "away")
    try:
        recipe = pretrained(recipe_of, "some/doctored")
        found = needs(recipe)["missing-weights"]
        assert found.level == "failure"
        assert found.advice.startswith("run `trainer prepare mine.yaml` on a machine that reaches")
        for module in (constants, config):  # which read the environment once
            monkeypatch.setattr(module, "HF_HUB_OFFLINE", False)
        assert needs(recipe)["missing-weights"].level == "note"
        assert constants.HF_HUB_OFFLINE is False
    finally:
        (cached_model / "away").rename(weights)


def test_a_folder_without_a_shard_is_a_failure(recipe_of, cached_model, tmp_path):
    folder = tmp_path / "model-folder"
    shutil.copytree(cached_model, folder)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00001.safetensors"}})
    )
    found = needs(pretrained(recipe_of, folder))["missing-weights"]
    assert (found.level, "lacks" in found.message) == ("failure", True)


def test_what_was_never_cached_is_named_and_the_data_wait(recipe_of, reviews_recipe):
    found = needs(pretrained(recipe_of, "some/unknown"))
    assert {code for code in found if found[code].level == "failure"} == {
        "missing-tokenizer",
        "missing-configuration",
        "missing-weights",
    }
    values = {**reviews_recipe, "data": {"source": {"hub": "some/unknown-rows"}}}
    rows = needs(parse_recipe(values, "the recipe"))["missing-data"]
    assert rows.message.startswith("data: not all of some/unknown-rows is in the caches")
    (waiting,) = about_data(parse_recipe(values, "the recipe"), readable=False)
    assert waiting.code == "data-not-examined"


def test_a_model_that_its_run_has_not_written_is_a_failure(recipe_of):
    found = needs(pretrained(recipe_of, "runs/never/model"))
    assert found["missing-configuration"].level == "failure"
    assert found["missing-configuration"].advice == "train it first"


def test_files_that_are_gone_are_a_failure(recipe_of, tmp_path):
    recipe = recipe_of()
    (tmp_path / "train.jsonl").unlink()
    assert needs(recipe)["missing-data"].level == "failure"


def test_launch_and_recipe_are_held_against_each_other(recipe_of, monkeypatch):
    from trainer.errors import ConfigError

    (found,) = about_launch(recipe_of())
    assert found.message == "fp32, 16 examples a step = 1 process x micro-batch 8 x accumulation 2"
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        list(about_launch(recipe_of(precision="fp16")))
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ConfigError, match="not divisible by 3 processes"):
        list(about_launch(recipe_of()))
