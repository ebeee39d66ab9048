"""Checks that a column holds classes, rather than scores, several labels a row, or free text."""

import re
import unicodedata
from collections.abc import Callable, Collection, Iterable
from itertools import groupby

from trainer.wording import excerpt, listed

MOST_LABELS = 1000
"""Maximum number of classes, unless a recipe lists them: ids and free text have one a row."""
ONE_LABEL = "classification takes one label a row, and several are not supported yet"
FEW_LABELS = 10
"""Number of labels that may each occur in one row only, as in a small example."""

ALMOST_ALL = 0.9
"""Maximum number of labels as a share of the rows."""

_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,300}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?%?")
_DECIMAL_COMMA = re.compile(r"[-+]?[0-9]{1,300},[0-9]+")
_MISSING = {"", "-", "?", "na", "n/a", "nan", "none", "null", "missing", "inf", "-inf"}
"""What tables hold in place of a number."""
_SEPARATORS = (",", ";", "|")


def number_of(text: str) -> float | None:
    """Returns a label as a number; None if it is not one."""
    return float(text.rstrip("%")) if _NUMBER.fullmatch(text) else None


def plain_text(text: str) -> str:
    """Returns a label in one spelling: 1.0, 01 and 1 become 1, and True becomes true."""
    if text.lower() in ("true", "false"):
        return text.lower()
    if re.fullmatch(r"[-+]?[0-9]{1,300}(?:\.0*)?", text):
        return str(int(text.partition(".")[0]))
    return text


def problem_of_labels(
    labels: Collection[str], num_rows: int, first_row: Callable[[str], int]
) -> tuple[str, str] | None:
    """Returns why the distinct labels of a column do not look like classes, and what to do; None if
    they do.

    The column has `num_rows` rows, and `first_row` returns the number of the first with a label.
    """
    in_recipe = "or, if each is a class, list them in task.labels or set task.check_labels: false"
    numbers = {label: number_of(label) for label in labels if label.lower() not in _MISSING}
    whole = all(number is not None and number.is_integer() for number in numbers.values())
    scores = not whole and None not in numbers.values()
    if len(labels) > 1 and (scores or all(map(_DECIMAL_COMMA.fullmatch, labels))):
        problem = (
            f"holds numbers with fractions ({listed(sorted(labels), 4)}), which look like scores"
        )
        return problem, f"regression is not supported yet: name a column of classes, {in_recipe}"
    several = _several_in_one(labels)
    if several is not None:
        problem = f"holds several labels a row ({excerpt(several)!r} in row {first_row(several)})"
        return problem, f"{ONE_LABEL}: name a column with one, {in_recipe}"
    if len(labels) > max(FEW_LABELS, ALMOST_ALL * num_rows) or len(labels) > MOST_LABELS:
        most = "more than 1,000" if len(labels) > MOST_LABELS else f"{len(labels):,}"
        kind = "scores or ids" if whole else "ids or free text"
        problem = (
            f"has {most} different labels in {num_rows:,} rows ({listed(sorted(labels), 3)}), "
            f"which look like {kind}, not classes"
        )
        return problem, f"name the column of the classes, {in_recipe}"
    for _, same in groupby(sorted(labels, key=folded), key=folded):
        spellings = sorted(same)
        if len(spellings) > 1:
            problem = (
                f"has labels that differ only in how they are written: "
                f"{listed(map(repr, spellings), 4)}"
            )
            return problem, f"write them alike, {in_recipe}"
    return None


def folded(label: str) -> str:
    """Returns a label without case, repeated spaces and invisible characters."""
    text = unicodedata.normalize("NFKC", plain_text(label)).casefold()
    return " ".join("".join(c for c in text if unicodedata.category(c) != "Cf").split())


def _several_in_one(labels: Collection[str]) -> str | None:
    """Returns a label that evidently joins several; None if none does.

    Evident are lists as text; the same number of zeros and ones in each label; and parts that also
    occur in other labels: `a,b` if there are `a` and `b`, but not a name that contains a comma.
    """
    lists = [label for label in labels if label[0] + label[-1] in ("[]", "{}")]
    if len(lists) == len(labels) and any(re.search(r"[,'\"]|\[[0-9]", text) for text in lists):
        return max(lists, key=lambda text: (text.count(","), text))
    for separator in (*_SEPARATORS, " "):
        parts = {label: [part.strip() for part in label.split(separator)] for label in labels}
        joined = {label: split for label, split in parts.items() if len(split) > 1}
        if not joined:
            continue
        counts = {len(split) for split in parts.values()}
        if len(counts) == 1 and {part for split in parts.values() for part in split} <= {"0", "1"}:
            return min(joined)
        alone = {split[0] for split in parts.values() if len(split) == 1}
        if separator == " " or not (alone or len(counts) > 1):
            continue
        repeated = _in_several(parts.values())
        evident = [label for label, split in joined.items() if repeated.issuperset(split)]
        if 2 * len(evident) >= len(joined):
            return min(evident)
    return None


def _in_several(splits: Iterable[list[str]]) -> set[str]:
    """Returns the parts that occur in more than one of the splits."""
    seen, repeated = set[str](), set[str]()
    for split in splits:
        parts = set(split)
        repeated |= parts & seen
        seen |= parts
    return repeated
