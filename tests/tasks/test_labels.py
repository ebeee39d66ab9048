"""Columns that hold no classes are refused; labels match however numbers are written."""

import re
import time
from decimal import Decimal
from typing import Any

import datasets
import pytest
from pydantic import ValidationError

from trainer.errors import DataError
from trainer.tasks.classification.labels import index_of, label_indices, label_names
from trainer.tasks.classification.settings import ClassificationSettings
from trainer.wording import LONGEST_MESSAGE


def rows(labels: list[Any], feature: Any = None) -> datasets.Dataset:
    made = datasets.Dataset.from_dict({"text": ["words"] * len(labels), "label": labels})
    return made if feature is None else made.cast_column("label", feature)


def names(labels: list[Any], **settings: Any) -> tuple[str, ...]:
    return label_names(rows(labels), "label", **settings)


SCORES = [
    ["0.00", "4.80", "3.20"] * 20,
    [0.0, 4.8, 3.2],
    [1.0, 0.0, 0.5],
    [Decimal("0.40"), Decimal("1.00")],
    ["0,40", "3,20", "4,00"],
    ["12.5%", "40%"],
    ["3.2", "n/a", "1.5"],
    ["1e-3", "2e-3"],
]
SEVERAL = [
    [[0, 1], [1]],
    [[0.0, 1.0], [1.0, 0.0]],
    [["a", "b"], ["b"]],
    ["[0, 1]", "[1]"],
    ['["a", "b"]', '["b"]'],
    ["a,b", "a", "b"],
    ["a; b", "a", "b", "c"],
    ["2|17", "2", "17"],
    ["a,b", "a,b,c", "b,c"],
    ["0,1,0", "1,0,0"],
    ["0 1", "1 1", "1 0"],
]
CLASSES = [
    (["1.0", "0.0"], ("0.0", "1.0")),
    ([1.0, 2.0, 5.0], ("1", "2", "5")),
    (["5", "4", "1"], ("1", "4", "5")),
    (["10", "9", "-1"], ("-1", "9", "10")),
    (["10.0", "9.0", "2.0"], ("2.0", "9.0", "10.0")),
    ([True, False], ("False", "True")),
    (["4/5", "5/5"], ("4/5", "5/5")),
    (
        ["food, drinks", "sports, outdoors", "drinks"],
        ("drinks", "food, drinks", "sports, outdoors"),
    ),
    (
        ["good,new", "good,old", "bad,new", "bad,old"],
        ("bad,new", "bad,old", "good,new", "good,old"),
    ),
    (["tench, Tinca tinca", "goldfish"], ("goldfish", "tench, Tinca tinca")),
    (["[positive]", "[negative]"], ("[negative]", "[positive]")),
    ([" a", "a", "b "], ("a", "b")),
    (["v1.5", "v2.0"], ("v1.5", "v2.0")),
    (["²", "①"], ("²", "①")),
]


@pytest.mark.parametrize("labels", SCORES, ids=str)
def test_numbers_with_fractions_are_scores(labels):
    with pytest.raises(DataError, match=r"^data\.columns\.label: .*look like scores; regression"):
        names(labels)


@pytest.mark.parametrize("labels", SEVERAL, ids=str)
def test_several_labels_a_row_are_refused_with_an_example(labels):
    with pytest.raises(DataError, match=r"several (labels a row|are not supported)") as caught:
        names(labels)
    assert caught.value.key == "data.columns.label"
    assert "row 1" in str(caught.value)


@pytest.mark.parametrize(("labels", "found"), CLASSES, ids=str)
def test_what_looks_like_classes_is_classes(labels, found):
    assert names(labels) == found


@pytest.mark.parametrize(
    "labels",
    [
        ["positive", "Positive"],
        ["very good", "very  good"],
        ["1", "1.0"],
        ["01", "1"],
        ["true", "True"],
        ["caf\u00e9", "cafe\u0301"],
        ["a", "\u200ba"],
    ],
    ids=ascii,
)
def test_labels_that_differ_in_their_form_only_are_refused(labels):
    with pytest.raises(DataError, match="differ only in how they are written"):
        names([*labels, "other"])
    assert len(names([*labels, "other"], checked=False)) == 3


def test_unchecked_labels_are_taken_as_they_are():
    assert names(["0.40", "3.20"], checked=False) == ("0.40", "3.20")
    assert names(["10.0", "9.0"], checked=False) == ("10.0", "9.0")
    assert len(names([str(number) for number in range(2000)], checked=False)) == 2000


@pytest.mark.parametrize("kind", [str, "a text of its own, number {}".format])
@pytest.mark.parametrize("num_rows", [12, 60, 100_000])
def test_a_label_for_each_row_is_refused_at_once(num_rows, kind):
    labels = [kind(number) for number in range(num_rows)]
    made, start = rows(labels), time.monotonic()
    with pytest.raises(DataError, match=r"different labels in [0-9,]+ rows .*, not classes") as no:
        label_names(made, "label")
    assert time.monotonic() - start < 2
    assert len(str(no.value)) <= LONGEST_MESSAGE


def test_many_labels_of_many_rows_are_classes():
    assert len(names([f"intent {number % 300}" for number in range(1500)])) == 300
    assert len(names([number % 10 for number in range(10)])) == 10  # one row of each


def test_minus_100_marks_a_row_without_a_label():
    with pytest.raises(DataError, match="row 3: ") as caught:
        names([0, 1, -100])
    assert (caught.value.key, caught.value.value) == ("data.columns.label", -100)
    assert names([0, 1, -100], skip_bad=True) == ("0", "1")


def label_setting(*labels: Any) -> tuple[str, ...] | None:
    return ClassificationSettings(name="classification", labels=labels).labels


def test_labels_of_a_recipe_may_be_numbers_and_booleans():
    assert label_setting(0, 1) == ("0", "1")
    assert label_setting(0.0, 1.0) == ("0", "1")
    assert label_setting(False, True) == ("False", "True")
    for wrong in ((0.5, 1), (1, "1"), (None, "a"), ([0], "a")):
        with pytest.raises(ValidationError):
            label_setting(*wrong)


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (("0", "1"), [1, 0]),
        (("0", "1"), ["1", "0"]),
        (("0", "1"), [1.0, 0.0]),
        (("0", "1"), ["1.0", "0.0"]),
        (("0.0", "1.0"), [1, 0]),
        (("00", "01"), ["1", "0"]),
        (("False", "True"), [True, False]),
        (("False", "True"), ["true", "false"]),
        (("false", "true"), ["TRUE", "False"]),
        (("no", "yes"), ["1.0", "0.0"]),
        (("900719925474099300", "900719925474099301"), [900719925474099301, 900719925474099300]),
    ],
    ids=str,
)
def test_numbers_and_booleans_match_however_they_are_written(labels, values):
    known = label_indices(rows(values), "label", labels)
    assert [index_of(value, known) for value in values] == [1, 0]


def test_numbers_that_are_labels_are_no_positions():
    known = label_indices(rows([0, 0]), "label", ("1", "2"))
    assert index_of(0, known) == -1  # a split without labels, say
    assert index_of(0, label_indices(rows([0, 0]), "label", ("1", "2"), checked=False)) == 0


def test_class_names_are_matched_by_name_also_where_their_case_differs():
    feature = datasets.ClassLabel(names=["Positive", "Negative"])
    known = label_indices(rows([0, 1], feature), "label", ("negative", "neutral", "positive"))
    assert known == {"0": 2, "1": 0}
    others = datasets.ClassLabel(names=["no", "yes"])
    assert label_indices(rows([0, 1], others), "label", ("bad", "good")) == {"0": 0, "1": 1}


def test_messages_are_short_whatever_the_labels_are():
    with pytest.raises(DataError) as caught:
        names([f"{number} " + "long " * 10_000 for number in range(30)])
    assert len(str(caught.value)) <= LONGEST_MESSAGE
    assert re.search(r"\(50,00[0-9] characters\)", str(caught.value))
