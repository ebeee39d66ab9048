"""Documents made of rows that are lines: separated by blank lines, or begun by titles."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal

from trainer.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

TITLE = re.compile(r"\s*= [^=]+ =\s*")
"""A document's title in WikiText; titles of sections repeat the sign: = = History = =."""

FORMAT = 1
"""Incremented when the documents of the same rows change, so that older ones are not reused."""

SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+(?=\S)")


def group_documents(
    rows: "Dataset", column: str, begin: Literal["blank_lines", "headings"], number: str
) -> "Dataset":
    """Returns one row per document: its lines in `column`, the number of its first row in `number`.

    Raises DataError if no row has text.
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
        raise DataError(
            f"data.documents: {begin}, but no row of the column {column} has text",
            key="data.documents",
            value=begin,
            hint="check data.columns.text",
        ) from error
    return grouped  # type: ignore[return-value]


def sentences(text: str) -> list[str]:
    """Returns the sentences of a text: its lines, cut after full stops followed by white space."""
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
    format: int,  # noqa: ARG001  (part of the key under which the library caches the result)
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
