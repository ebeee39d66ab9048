"""Errors: their parts, and messages that stay readable whatever goes into them."""

from trainer.errors import ConfigError, DataError
from trainer.wording import LONGEST_MESSAGE, excerpt, listed


def test_a_short_text_is_its_own_excerpt() -> None:
    assert excerpt("a label") == "a label"


def test_an_excerpt_has_at_most_the_given_length_and_counts_the_rest() -> None:
    text = excerpt("x" * 287_000, 60)
    assert len(text) == 60
    assert text.endswith("… (287,000 characters)")


def test_a_list_counts_what_it_leaves_out() -> None:
    assert listed(["a", 1]) == "a, 1"
    assert listed(range(5_000), most=3) == "0, 1, 2 and 4,997 more"


def test_a_message_is_cut() -> None:
    message = str(DataError("y" * 10_000))
    assert len(message) == LONGEST_MESSAGE


def test_the_hint_ends_the_message_and_every_part_is_an_attribute() -> None:
    error = ConfigError("lr is text", key="optimizer.lr", value="x", hint="give a number")
    assert str(error) == "lr is text; give a number"
    assert (error.key, error.value, error.hint) == ("optimizer.lr", "x", "give a number")


def test_an_error_about_a_file_becomes_one_about_the_key_that_names_it() -> None:
    inner = DataError("a.csv is empty", key="a.csv", hint="fill it")
    outer = inner.under("data.source.files.train")
    assert type(outer) is DataError
    assert str(outer) == "data.source.files.train: a.csv is empty; fill it"
    assert (outer.key, outer.value, outer.hint) == ("data.source.files.train", "a.csv", "fill it")


def test_an_error_of_a_row_keeps_its_parts_when_the_row_is_named() -> None:
    inner = DataError("the label is empty", key="data.columns.label", value="", hint="fix the row")
    outer = inner.after("row 3: ").after("the train split, ")
    assert type(outer) is DataError
    assert str(outer) == "the train split, row 3: the label is empty; fix the row"
    assert (outer.key, outer.value, outer.hint) == ("data.columns.label", "", "fix the row")
