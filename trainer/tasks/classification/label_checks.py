"""What shows that a column holds no classes: scores, several labels a row, or a label for each."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from itertools import groupby

from trainer.wording import excerpt, listed

MOST_LABELS = 1000
"""More are taken for classes only if a recipe says so: a wrong column has one for each row."""
FEW_LABELS = 10
"""So many may each stand in one row only, as in a small example."""

ALMOST_ALL = 0.9
"""Share of the rows with a label of their own from which a column holds no classes."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?%?")
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]{1,300},[0-9]+")
_NO_NUMBER = {"", "-", "?", "na", "n/a", "nan", "none", "null", "missing", "inf", "-inf"}
"""What tables hold in place of a number."""
_SEPARATORS = (",", ";", "|")


def number_of(text: str) -> float | None:
    """Returns the number that a label is, None for a name."""
    return float(text.rstrip("%")) if _NUMBER.fullmatch(text) else None


def plain_text(text: str) -> str:
    """Returns a label as it is compared: 1.0, 01 and 1 are one number, true and True one value."""
    if text.lower() in ("true", "false"):
        return text.lower()
    if re.fullmatch(r"[-+]?[0-9]{1,300}(?:\.0*)?", text):
        return str(int(text.partition(".")[0]))
    return text


def problem_of_labels(
    labels: Collection[str], num_rows: int, first_row: Callable[[str], int]
) -> str | None:
    """Returns what is wrong with the different labels of a column of so many rows, and what to do;
    None where they are classes.

    `first_row` returns the number of the first row with a label.
    """
    in_recipe = "or, if each is a class, list them in task.labels or set task.check_labels: false"
    numbers = {label: number_of(label) for label in labels if label.lower() not in _NO_NUMBER}
    whole = all(number is not None and number.is_integer() for number in numbers.values())
    scores = not whole and None not in numbers.values()
    if len(labels) > 1 and (scores or all(map(_DECIMAL_COMMA.fullmatch, labels))):
        return (
            f"holds numbers with fractions ({listed(sorted(labels), 4)}), which look like scores; "
            f"regression is not supported yet: name a column of classes, {in_recipe}"
        )
    several = _several_in_one(labels)
    if several is not None:
        return (
            f"holds several labels a row ({excerpt(several)!r} in row {first_row(several)}); "
            f"classification takes one, and several are not supported yet: name a column with one "
            f"label a row, {in_recipe}"
        )
    if len(labels) > max(FEW_LABELS, ALMOST_ALL * num_rows) or len(labels) > MOST_LABELS:
        most = "more than 1,000" if len(labels) > MOST_LABELS else f"{len(labels):,}"
        found = "scores or ids" if whole else "ids or free text"
        return (
            f"has {most} different labels in {num_rows:,} rows ({listed(sorted(labels), 3)}), "
            f"which look like {found}, not classes; name the column of the classes, {in_recipe}"
        )
    for _, same in groupby(sorted(labels, key=folded), key=folded):
        spellings = sorted(same)
        if len(spellings) > 1:
            return (
                f"has labels that differ only in how they are written: "
                f"{listed(map(repr, spellings), 4)}; write them alike, {in_recipe}"
            )
    return None


def folded(label: str) -> str:
    """Returns a label without case, repeated spaces and signs that nobody sees."""
    text = unicodedata.normalize("NFKC", plain_text(label)).casefold()
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())


def _several_in_one(labels: Collection[str]) -> str | None:
    """Returns a text that evidently holds several labels, None where there is none.

    Evident are lists as text; zeros and ones, as many in each label; and texts whose parts stand
    for themselves elsewhere: `a,b` beside `a` and `b`, but not a name with a comma in it.
    """
    brackets = [label for label in labels if label[0] + label[-1] in ("[]", "{}")]
    if len(brackets) == len(labels) and any(re.search(r"[,'\"]|\[[0-9]", one) for one in brackets):
        return max(brackets, key=lambda one: (one.count(","), one))
    for separator in (*_SEPARATORS, " "):
        parts = {label: [one.strip() for one in label.split(separator)] for label in labels}
        joined = {label: split for label, split in parts.items() if len(split) > 1}
        if not joined:
            continue
        counts = {len(split) for split in parts.values()}
        if len(counts) == 1 and {one for split in parts.values() for one in split} <= {"0", "1"}:
            return min(joined)
        alone = {split[0] for split in parts.values() if len(split) == 1}
        if separator == " " or not (alone or len(counts) > 1):
            continue
        known = _in_several(parts.values())
        evident = [label for label, split in joined.items() if known.issuperset(split)]
        if 2 * len(evident) >= len(joined):
            return min(evident)
    return None


def _in_several(splits: Iterable[list[str]]) -> set[str]:
    """Returns the parts that stand in more than one of some labels."""
    seen, again = set[str](), set[str]()
    for split in splits:
        parts = set(split)
        again |= parts & seen
        seen |= parts
    return again
