"""What is said of splits: without labels or answers, in contradiction, or with rows in common."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.assembly.inputs import Inputs, build_inputs
from trainer.errors import ConfigError, DataError, TrainerError
from trainer.recipe.schema import Recipe
from trainer.tasks.recipe import parse_recipe

BERT = {
    "model_type": "bert",
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
}
LABELLED = [{"text": f"text number {n}", "label": n % 2} for n in range(8)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAINER_CACHE", str(tmp_path / "cache"))


def recipe_of(folder: Path, splits: dict[str, list[Any]], **data: Any) -> Recipe:
    files = {name: str(folder / f"{name}.jsonl") for name in splits}
    for name, rows in splits.items():
        Path(files[name]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = data.pop("task", {"name": "classification"})
    values = {
        "model": {
            "architecture": BERT,
            "initialization": "random",
            "tokenizer": {"train": "wordpiece", "vocab_size": 64},
        },
        "task": task,
        "data": {"source": {"files": files}, **data},
        "batch": {"global_batch_size": 2, "max_seq_length": 16},
    }
    return parse_recipe(values, "recipe")


def inputs_of(folder: Path, splits: dict[str, list[Any]], **data: Any) -> Inputs:
    return build_inputs(recipe_of(folder, splits, **data), None)


def without(rows: list[dict[str, Any]], *keys: str, **instead: Any) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k not in keys} | instead for row in rows]


UNLABELLED = {
    "-1": without(LABELLED, label=-1),
    "-1.0": without(LABELLED, label=-1.0),
    "-100": without(LABELLED, label=-100),
    "text -1": without(LABELLED, label="-1"),
    "empty": without(LABELLED, label=""),
    "null": without(LABELLED, label=None),
    "question mark": without(LABELLED, label="?"),
    "some -1, some null": [*without(LABELLED, label=-1), *without(LABELLED, label=None)],
    "no column": without(LABELLED, "label"),
}


@pytest.mark.parametrize("rows", UNLABELLED.values(), ids=UNLABELLED)
@pytest.mark.parametrize("named", [{}, {"split": {"test": "test"}}], ids=["auto", "named"])
def test_a_test_split_without_labels_is_set_aside(tmp_path, rows, named):
    found = inputs_of(tmp_path, {"train": LABELLED, "validation": LABELLED, "test": rows}, **named)
    assert list(found.splits) == ["train", "validation"]
    note = next(note for note in found.notes if "set aside" in note)
    assert f"the test split of {len(rows)} rows" in note
    assert "data.split.test" in note


@pytest.mark.parametrize("rows", UNLABELLED.values(), ids=UNLABELLED)
def test_a_validation_split_without_labels_is_refused(tmp_path, rows):
    with pytest.raises(DataError, match=r"data\.split\.validation: |no column label; it has text"):
        inputs_of(tmp_path, {"train": LABELLED, "validation": rows})


def test_rows_without_a_label_among_others_are_bad_rows(tmp_path):
    splits = {"train": LABELLED, "test": [*LABELLED, *without(LABELLED[:3], label=-1)]}
    with pytest.raises(DataError, match=r"^the test split, row 9: ") as caught:
        inputs_of(tmp_path, splits)
    assert (caught.value.key, caught.value.value) == ("data.columns.label", -1)
    found = inputs_of(tmp_path, splits, on_bad_example="skip")
    assert len(found.splits["test"]) == 8
    assert any(note.startswith("3 bad test examples were skipped") for note in found.notes)


def test_a_test_split_in_which_unchecked_labels_match_none_is_set_aside(tmp_path):
    train = [{**row, "label": ("false", "true")[row["label"]]} for row in LABELLED]
    splits = {"train": train, "test": without(train, label="01")}
    task = {"name": "classification", "check_labels": False}
    found = inputs_of(tmp_path, splits, task=task)
    assert "test" not in found.splits
    assert any("the column label has '01' in every row" in note for note in found.notes)
    assert len(inputs_of(tmp_path, splits).splits["test"]) == len(LABELLED)


def test_minus_1_is_a_label_where_train_has_it(tmp_path):
    train = [{**row, "label": row["label"] or -1} for row in LABELLED]
    splits = {"train": train, "test": without(LABELLED, label=-1)}
    found = inputs_of(tmp_path, splits)
    assert len(found.splits["test"]) == 8
    assert "every test row has the label '-1'" in found.notes
    three = [*train, *without(LABELLED, label=0)]
    assert any(
        note.startswith("-1 is a label of ") for note in inputs_of(tmp_path, {"train": three}).notes
    )


def test_a_test_split_that_exclusion_empties_is_set_aside(tmp_path):
    splits = {"train": LABELLED, "test": UNLABELLED["-1"]}
    found = inputs_of(tmp_path, splits, exclude={"label": [-1]})
    assert "test" not in found.splits
    (note,) = (note for note in found.notes if "set aside" in note)
    assert note.startswith("the test split of 8 rows")
    assert "data.exclude" in note
    with pytest.raises(TrainerError, match="no row of the test split is left"):
        inputs_of(tmp_path, splits, exclude={"label": [-1]}, split={"validation": "test"})


def test_a_nested_label_may_be_absent_from_a_test_split(tmp_path):
    nested = [{"text": row["text"], "meta": {"label": row["label"]}} for row in LABELLED]
    splits = {"train": nested, "test": [{"text": "a", "meta": {"source": "b"}}] * 2}
    found = inputs_of(tmp_path, splits, columns={"label": "meta.label"})
    assert "test" not in found.splits
    with pytest.raises(DataError, match=r"the validation split has no column meta\.label"):
        inputs_of(
            tmp_path,
            {"train": nested, "validation": splits["test"]},
            columns={"label": "meta.label"},
        )


def test_labels_without_a_train_row_are_said(tmp_path):
    task = {"name": "classification", "labels": [0, 1, 2]}
    found = inputs_of(tmp_path, {"train": LABELLED}, task=task)
    assert "no train row has the label 2" in found.notes


# Questions

CONTEXT = "Oslo lies in Norway."


def asked(number: int, *texts: str, **other: Any) -> dict[str, Any]:
    answers = {"text": [*texts], "answer_start": [CONTEXT.index(text) for text in texts]}
    question = {"id": f"q{number}", "question": "Which one?", "context": CONTEXT}
    return {**question, "answers": answers, **other}


ANSWERED = [asked(number, "Oslo" if number % 2 else "Norway") for number in range(6)]
QUESTIONS = {"task": {"name": "question_answering"}}


@pytest.mark.parametrize("form", ["no column", "null", "nothing in it", "empty text"])
@pytest.mark.parametrize("named", [{}, {"split": {"test": "test"}}], ids=["auto", "named"])
def test_a_test_split_that_says_nothing_of_answers_is_set_aside(tmp_path, form, named):
    nothing = {"no column": {}, "null": {"answers": None}, "empty text": {"answers": ""}}
    other = nothing.get(form, {"answers": {"text": None, "answer_start": None}})
    test = without(ANSWERED, "answers", **other)
    splits = {"train": ANSWERED, "validation": ANSWERED, "test": test}
    found = inputs_of(tmp_path, splits, **QUESTIONS, **named)
    assert list(found.splits) == ["train", "validation"]
    assert any("the test split of 6 rows is set aside" in note for note in found.notes)


def test_questions_without_any_answer_are_measured_where_the_recipe_names_them(tmp_path):
    nothing = [asked(number) for number in range(4)]
    splits = {"train": [*ANSWERED, asked(9)], "validation": ANSWERED, "test": nothing}
    found = inputs_of(tmp_path, splits, **QUESTIONS)
    assert "test" not in found.splits
    assert any("the column answers has no answer in any row" in note for note in found.notes)
    found = inputs_of(tmp_path, splits, split={"test": "test"}, **QUESTIONS)
    assert len(found.splits["test"]) == 4
    assert "no test question has an answer" in found.notes


def test_a_validation_split_that_says_nothing_of_answers_is_refused(tmp_path):
    splits = {"train": ANSWERED, "validation": without(ANSWERED, answers=None)}
    with pytest.raises(DataError, match="the column answers is empty in every row") as caught:
        inputs_of(tmp_path, splits, **QUESTIONS)
    assert caught.value.key == "data.split.validation"
    assert "set it to null" in (caught.value.hint or "")


@pytest.mark.parametrize("metric", ["HasAns_f1", "bleu", "meteor"])
def test_a_metric_that_validation_does_not_have_is_refused(tmp_path, metric):
    splits = {"train": ANSWERED, "validation": [asked(1), asked(2)]}
    recipe = recipe_of(tmp_path, splits, **QUESTIONS)
    evaluation = recipe.evaluation.model_copy(update={"metric": metric})
    with pytest.raises(ConfigError) as caught:
        build_inputs(recipe.model_copy(update={"evaluation": evaluation}), None)
    assert (caught.value.key, caught.value.value) == ("evaluation.metric", metric)
    assert len(build_inputs(recipe, None).splits["validation"]) == 2


CONTRADICTIONS = [
    (asked(7, "Oslo", is_impossible=True), "is_impossible is true, and there is an answer, 'Oslo'"),
    (asked(7, is_impossible=False), "is_impossible is false, and there is no answer"),
    (asked(7, "Oslo", is_impossible="perhaps"), "is_impossible is 'perhaps'; write true or false"),
]


@pytest.mark.parametrize(("bad", "sentence"), CONTRADICTIONS, ids=["yes", "no", "neither"])
def test_is_impossible_agrees_with_the_answers(tmp_path, bad, sentence):
    kind = type(bad["is_impossible"])
    fine = [{**row, "is_impossible": kind(0) if kind is bool else "false"} for row in ANSWERED]
    none = asked(8, is_impossible=True if kind is bool else "TRUE")
    splits = {"train": [*fine, none, bad], "validation": fine}
    with pytest.raises(
        DataError, match=f"the train split, row 8 \\(id q7\\): {sentence}"
    ) as caught:
        inputs_of(tmp_path, splits, **QUESTIONS)
    if bad["is_impossible"] == "perhaps":
        error = caught.value
        assert (error.key, error.value) == ("is_impossible", "perhaps")
        assert error.hint == "write true or false"
    found = inputs_of(tmp_path, splits, on_bad_example="skip", **QUESTIONS)
    assert len(found.splits["train"]) == 7
    assert any(note.startswith("1 bad train examples were skipped") for note in found.notes)


def test_the_same_rows_with_another_is_impossible_are_prepared_anew(tmp_path):
    splits = {"train": [{**row, "is_impossible": False} for row in ANSWERED]}
    assert len(inputs_of(tmp_path, splits, on_bad_example="skip", **QUESTIONS).splits["train"]) == 5
    splits["train"][0]["is_impossible"] = splits["train"][1]["is_impossible"] = True
    found = inputs_of(tmp_path, splits, on_bad_example="skip", **QUESTIONS).splits
    assert sum(len(part) for part in found.values()) == 4


# Rows in common


def test_rows_in_two_splits_and_texts_with_two_labels_are_said(tmp_path):
    other = [{"text": f"other {n}", "label": n % 2} for n in range(5)]
    train = [*LABELLED, {"text": LABELLED[0]["text"], "label": 1}]
    splits = {"train": train, "validation": [*other, *LABELLED[:3]], "test": other}
    assert inputs_of(tmp_path, splits).notes == (
        "3 of 8 validation rows also occur in train",
        "all 5 test rows also occur in validation",
        "2 train rows repeat the text of another row with a different label",
    )
    found = inputs_of(tmp_path, {"train": LABELLED}, split={"validation": "train"})
    assert found.notes == ("all 8 validation rows also occur in train",)
    split = {"validation": None, "test": "test"}
    assert inputs_of(tmp_path, {"train": LABELLED, "test": other}, split=split).notes == ()


def test_the_same_questions_in_two_splits_are_said_whatever_their_ids(tmp_path):
    again = [{**row, "id": f"other {row['id']}"} for row in ANSWERED]
    found = inputs_of(tmp_path, {"train": ANSWERED, "validation": again}, **QUESTIONS)
    assert "all 6 validation rows also occur in train" in found.notes


def test_the_same_instructions_in_two_splits_are_said(tmp_path):
    gpt2 = {"model_type": "gpt2", "n_embd": 8, "n_layer": 1, "n_head": 2}
    task = {"name": "causal_lm", "prompt": "{text}: ", "completion": "{label}"}
    recipe = recipe_of(tmp_path, {"train": LABELLED, "test": LABELLED[2:4]}, task=task)
    model = recipe.model.model_copy(update={"architecture": gpt2})
    found = build_inputs(recipe.model_copy(update={"model": model}), None)
    assert any(note.endswith("test rows also occur in train") for note in found.notes)
