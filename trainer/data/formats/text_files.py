"""Text files: every line is a row, blank lines included."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.data.formats.reading import Tables, chunks_of, lines_of, shown

if TYPE_CHECKING:
    from datasets import Features


def read_lines(files: Sequence[Path], notes: list[str]) -> "tuple[Features, Tables]":
    """Returns the features, a single column `text`, and the lines of all files.

    Only LF, CR LF and CR end a line. Notes are appended to `notes` as the files are read.
    """
    import datasets

    features = datasets.Features({"text": datasets.Value("string")})
    return features, _chunks(files, features, notes)


def _chunks(files: Sequence[Path], features: "Features", notes: list[str]) -> Tables:
    import pyarrow as pa

    for chunk in chunks_of(_lines(files, notes), len):
        yield pa.Table.from_arrays([pa.array(chunk, pa.string())], schema=features.arrow_schema)


def _lines(files: Sequence[Path], notes: list[str]) -> Iterator[str]:
    for file in files:
        lone, has_line_feeds = list[int](), False
        for number, line in enumerate(lines_of(file), 1):
            if line.endswith("\r"):
                lone.append(number)
            has_line_feeds = has_line_feeds or line.endswith("\n")
            yield line.rstrip("\r\n")
        if lone and has_line_feeds:
            notes.append(
                f"{shown(file)}: {len(lone)} lone carriage returns are read as the ends of lines, "
                f"as line feeds are, the first at the end of line {lone[0]}"
            )
