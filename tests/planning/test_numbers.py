"""The numbers of a planned model: its vocabulary is that of the tokenizer, once it is trained."""

import pytest

from trainer.planning.numbers import planned_numbers
from trainer.tasks.recipe import load_recipe


@pytest.mark.parametrize(
    ("name", "vocabulary", "expected"),
    [("demo", 100, 100), ("demo", None, 1000), ("bert-base-sst2", 100, 30_522)],
)
def test_the_vocabulary(name, vocabulary, expected):
    assert planned_numbers(load_recipe(name), vocabulary).vocab_size == expected
