"""Documents out of rows that are lines: what stands between empty lines, or under a title."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

TITLE = re.compile(r"\s*= [^=]+ =\s*")
"""A title of WikiText; those of sections have more signs: = = History = =."""

FORMAT = 1
"""Raised when the documents of the same rows change, so that no older ones are reused."""

SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+(?=\S)")


def group_documents(
    rows: "Dataset", column: str, begin: Literal["blank_lines", "headings"], number: str
) -> "Dataset":
    """Returns a row for each document: its lines in `column`, and in `number` its first row.

    Raises DataError where the rows hold no document.
    """
    import datasets

    features = datasets.Features(
        {column: datasets.Value("string"), number: datasets.Value("int64")}
    )
    try:
        grouped = datasets.Dataset.from_generator(
            _documents,
            features=features,
            gen_kwargs={
                "rows": rows,
                "column": column,
                "begin": begin,
                "number": number,
                "format": FORMAT,
            },
        )
    except ValueError as error:
        if "corresponds to no data" not in str(error):
            raise
        raise DataError(f"data.documents: {begin}, but no row of {column} has text") from error
    return grouped  # type: ignore[return-value]


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text: its lines, cut after full stops that a space follows."""
    return [
        sentence
        for line in text.splitlines()
        for sentence in _cut(line.strip())
        if any(character.isalnum() for character in sentence)
    ]


def _cut(line: str) -> list[str]:
    ends = [match.end() for match in SENTENCE_END.finditer(line)]
    return [
        line[start:end].strip() for start, end in zip([0, *ends], [*ends, len(line)], strict=True)
    ]


def _documents(
    rows: Any,
    column: str,
    begin: str,
    number: str,
    format: int,  # noqa: ARG001  (part of the name under which the library keeps the result)
) -> Iterator[dict[str, Any]]:
    lines: list[str] = []
    first = 0
    for chunk in rows.iter(batch_size=1000):
        for row, line in zip(chunk[number], chunk[column], strict=True):
            text = line or ""
            ends = not text.strip() if begin == "blank_lines" else TITLE.fullmatch(text)
            if ends and lines:
                yield {column: "\n".join(lines), number: first}
                lines = []
            if text.strip():
                first = first if lines else row
                lines.append(text.strip())
    if lines:
        yield {column: "\n".join(lines), number: first}
