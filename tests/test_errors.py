"""Messages stay readable whatever goes into them."""

from trainer.errors import DataError
from trainer.wording import LONGEST_MESSAGE, excerpt, listed


def test_a_short_text_is_its_own_excerpt() -> None:
    assert excerpt("a label") == "a label"


def test_an_excerpt_is_never_longer_than_asked_and_counts_the_rest() -> None:
    text = excerpt("x" * 287_000, 60)
    assert len(text) == 60
    assert text.endswith("… (287,000 characters)")


def test_a_list_counts_what_it_leaves_out() -> None:
    assert listed(["a", 1]) == "a, 1"
    assert listed(range(5_000), most=3) == "0, 1, 2 and 4,997 more"


def test_a_message_is_cut() -> None:
    message = str(DataError("y" * 10_000))
    assert len(message) == LONGEST_MESSAGE
