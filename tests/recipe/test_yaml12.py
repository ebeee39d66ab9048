"""YAML of plain values: anything else, or anything too large, is one sentence with its line."""

import re

import pytest

from trainer.errors import ConfigError
from trainer.recipe.yaml12 import read_yaml
from trainer.wording import LONGEST_MESSAGE

GROWING = "a: &a [x, x]\n" + "".join(
    f"{name}: &{name} [*{before}, *{before}]\n"
    for before, name in zip("abcdefghijklmno", "bcdefghijklmnop", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/object/apply:os.system [ls]", "line 1.*the tag"),
        ("a: 1\nb: !!int x", "line 2.*the tag"),
        ("a: !!binary aGk=", "the tag"),
        ("a: !!set {b}", "the tag"),
        ("a: ! b", "the tag"),
        ("a: 1\nb: 2\na: 3", "line 3.*the key a is given twice"),
        ("a: {b: 1, b: 1}", "the key b is given twice"),
        ("1: a", "the key 1 is not text"),
        ("null: a", "the key null is not text"),
        ("true: a", "the key true is not text"),
        ("[a, b]: c", "not text"),
        ("a: &a [1, *a]", "an alias inside the value"),
        ("&a {b: *a}", "an alias inside the value"),
        ("a: *b", "undefined alias"),
        (GROWING, "more than 20,000 values"),
        ("a: " + "[" * 50 + "]" * 50, "more than 20 levels"),
        ("[" * 50_000, "more than 20 levels"),
        ("a: " + "9" * 5_000, "5,000 digits"),
        ("a: 0." + "9" * 5_000, "digits"),
        ("- a\n" * 30_000, "more than 20,000 values"),
        ("a" * 4_000_001, "4,000,001 characters"),
        ("--- a\n--- b", "not valid YAML"),
        ("a: [1", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ('a: "\\ud800"', "surrogate"),
        ('a: "\\0"', "NUL"),
    ],
)
def test_other_yaml_is_refused_in_a_sentence(text, reason):
    with pytest.raises(ConfigError) as caught:
        read_yaml(text, "x.yaml")
    assert re.search(reason, str(caught.value))
    assert str(caught.value).startswith("x.yaml")
    assert caught.value.key == "x.yaml"
    assert len(str(caught.value)) <= LONGEST_MESSAGE


def test_anchors_may_repeat_a_value():
    assert read_yaml("a: &a {x: [1, 2]}\nb: *a", "x") == {"a": {"x": [1, 2]}, "b": {"x": [1, 2]}}


def test_a_huge_exponent_is_read_and_left_to_the_schema():
    assert read_yaml("1e999", "x") == float("inf")
