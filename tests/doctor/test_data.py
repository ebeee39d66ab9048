"""What is wrong with data, provoked by data that are wrong."""

import pytest
from support.film_rows import BAD, GOOD, OTHERS, ROWS
from support.findings import by_code

from trainer.doctor.preflight import about_data


def examined(recipe):
    return by_code(about_data(recipe, readable=True))


def test_sound_data_are_fine(recipe_of):
    findings = examined(recipe_of())
    assert {finding.level for finding in findings.values()} == {"fine"}
    assert findings.keys() == {"examples", "no-overlap", "classes", "lengths", "padding"}
    assert findings["classes"].figures == {"good": 40, "bad": 40}


def test_rows_of_the_test_that_occur_in_training_are_numbered(recipe_of):
    test = [
        *OTHERS,
        {"text": GOOD[3]["text"], "label": "good"},
        {"text": "FILM, number 5\u00a0is: GOOD!", "label": "good"},
        {"text": "ﬁlm number 7 is good", "label": "good"},  # a ligature, which NFKC takes apart
    ]
    findings = {f.message.split()[-1]: f for f in about_data(recipe_of(test=test), readable=True)}
    (shared,) = [f for f in findings.values() if f.code == "seen-in-training"]
    assert shared.level == "warning"
    assert shared.message == (
        "1 of 11 test rows occur in training, 3 if only letters and digits count (27.3%): test "
        "rows 9 = train 7, 10 = train 11, 11 = train 15"
    )
    assert shared.figures["rows"] == [(9, 7), (10, 11), (11, 15)]


def test_rows_without_letters_are_paired_with_the_same_text(recipe_of):
    train = [*ROWS, {"text": "!!!", "label": "good"}, {"text": "???", "label": "bad"}]
    findings = examined(recipe_of(train=train, test=[*OTHERS, {"text": "???", "label": "bad"}]))
    assert findings["seen-in-training"].figures["rows"] == [(len(OTHERS) + 1, len(train))]


def test_few_shared_rows_are_a_note_and_repeated_ones_too(recipe_of):
    test = [{"text": f"song {index}", "label": "good"} for index in range(150)]
    findings = examined(recipe_of(train=[*ROWS, *ROWS], test=[*test, ROWS[0]]))
    assert findings["seen-in-training"].level == "note"
    assert findings["seen-in-training"].message.endswith("test row 151 = train 1")
    assert findings["repeated-rows"].figures == {"rows": 80, "of": 160}


def test_labels_that_do_not_occur_are_named(recipe_of):
    recipe = recipe_of(task__labels=["good", "bad", "mixed"])
    findings = [f for f in about_data(recipe, readable=True) if f.code == "absent-label"]
    assert [(f.level, f.figures["split"]) for f in findings] == [
        ("warning", "train"),
        ("note", "validation"),
        ("note", "test"),
    ]
    assert findings[0].message == "no train row has the label mixed"
    test = [*OTHERS, {"text": "so so", "label": "mixed"}]
    measured = examined(recipe_of(test=test, task__labels=["good", "bad", "mixed"]))
    assert measured["absent-label"].message.endswith(
        "which test rows have: no answer to them is right"
    )


def test_classes_out_of_balance_are_named(recipe_of):
    many = [{"text": f"film number {index} is good", "label": "good"} for index in range(400)]
    findings = examined(recipe_of(train=[*many, *BAD[:3]]))
    assert findings["rare-class"].figures == {"bad": 3}
    assert findings["dominant-class"].figures == {"good": 400}
    assert findings["dominant-class"].message.startswith(
        "99.3% of the train rows have the label good"
    )
    assert not {"rare-class", "dominant-class"} & examined(recipe_of()).keys()


def test_what_is_truncated_and_how_long_examples_are(recipe_of):
    long = [{"text": "word " * 50, "label": "good"} for _ in range(20)]
    findings = examined(recipe_of(train=[*ROWS, *long], batch__max_seq_length=16))
    assert findings["truncated"].level == "warning"
    assert findings["truncated"].figures["truncated"] == 20
    assert findings["truncated"].message.startswith(
        "20 of 100 train examples (20.0%) are cut to 16"
    )
    assert findings["lengths"].figures["1"] == 16
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
    findings = examined(recipe_of(train=[*ROWS, *wrong]))
    assert findings["bad-rows"].level == "failure"
    assert "row 81: the label 'goood' is not one of" in findings["bad-rows"].message
    assert findings["bad-rows"].message.endswith("(rows that cannot be used: 2 train)")
    assert findings["lengths"].level == "fine"
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
    finding = examined(recipe_of(train=[*ROWS, *wrong]))["bad-rows"]
    assert len(finding.message) < 600
    shown = Examined("data", (finding,)).as_text()
    assert "\x1b" not in shown
    assert "\\x1b" in shown


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
    findings = examined(recipe)
    assert findings["unwritable-cache"].level == "failure"
    assert str(place) in findings["unwritable-cache"].message
    assert findings["classes"].figures == {"good": 41, "bad": 40}
    assert (tmp_path / "file").is_file()


def test_a_batch_that_cannot_be_cut_is_left_to_the_launch(recipe_of, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    codes = examined(recipe_of()).keys()
    assert "lengths" in codes
    assert not {"padding", "will-fail"} & codes
