"""Answers, and marks of having none, in the forms in which people write them."""

import json
import math
from typing import Any

import pytest

from trainer.data.answers import answer_texts, answers_of, is_impossible
from trainer.errors import DataError

OSLO = (("Oslo", 12),)


@pytest.mark.parametrize(
    "value",
    [
        {"text": ["Oslo"], "answer_start": [12]},
        {"text": ["Oslo"], "answer_start": ["12"]},
        {"text": ["Oslo"], "answer_start": [12.0]},
        {"text": "Oslo", "answer_start": 12},
        {"text": "Oslo", "answer_start": " 12 "},
        [{"text": "Oslo", "answer_start": 12}],
    ],
)
def test_answers_are_read_in_each_form(value):
    assert answers_of(value) == answers_of(json.dumps(value)) == OSLO
    assert answer_texts(value) == answer_texts(json.dumps(value)) == ["Oslo"]


def test_an_empty_list_means_no_answer_and_null_means_unknown():
    for value in ({"text": [], "answer_start": []}, [], "[]"):
        assert answers_of(value) == ()
    for value in (None, "", " ", "null", {"text": None, "answer_start": None}):
        assert answers_of(value) is None


@pytest.mark.parametrize(
    "value",
    [
        "Oslo",
        "{'text': ['Oslo'], 'answer_start': [12]}",
        "12",
        12,
        True,
        ["Oslo"],
        {"text": ["Oslo"], "answer_start": []},
        {"text": ["Oslo"], "answer_start": [True]},
        {"text": ["Oslo"], "answer_start": [12.5]},
        {"text": ["Oslo"], "answer_start": ["²"]},
        {"text": ["Oslo"], "answer_start": ["twelve"]},
        {"text": ["Oslo"], "answer_start": [None]},
        {"text": "Oslo", "answer_start": [12]},
        {"text": [None], "answer_start": [12]},
        {"text": [12], "answer_start": [12]},
        "[" * 100_000,
    ],
    ids=lambda value: repr(value)[:40],
)
def test_anything_else_is_refused_with_its_value(value):
    with pytest.raises(DataError, match="the answers are not texts with an answer_start") as caught:
        answers_of(value)
    error = caught.value
    assert (error.key, error.hint) == ("data.columns.answers", "fix the row")
    assert error.value == (12 if value == "12" else value)
    assert len(str(error)) < 300


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, True) for value in (True, 1, 1.0, "true", "True", " TRUE", "1")),
        *((value, False) for value in (False, 0, 0.0, "false", "False", "FALSE", "0")),
        *((value, None) for value in (None, "", "  ", math.nan)),
    ],
)
def test_true_and_false_are_read_however_they_are_written(value: Any, expected: bool | None):
    assert is_impossible(value) is expected


@pytest.mark.parametrize("value", ["yes", "no", 2, -1, 0.5, [], ["false"], {}, "falsch", "x" * 999])
def test_what_is_neither_is_refused(value: Any):
    with pytest.raises(DataError) as caught:
        is_impossible(value)
    assert (caught.value.key, caught.value.value) == ("is_impossible", value)
    assert str(caught.value).startswith("is_impossible is ")
    assert str(caught.value).endswith("; write true or false")
    assert len(str(caught.value)) < 200
