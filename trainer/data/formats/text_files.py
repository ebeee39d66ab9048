"""Text files, whose lines are rows: the blank ones too."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.formats.reading import Tables, lines_of, shown

if TYPE_CHECKING:
    from datasets import Features

CHUNK_ROWS = 10_000
CHUNK_CHARACTERS = 16 * 2**20


def read_lines(files: Sequence[Path], notes: list[str]) -> "tuple[Features, Tables]":
    """Returns the kind of the column `text`, and the lines of all files; `notes` grows with them.

    LF, CR LF and CR end a line, and no other character does.
    """
    import datasets

    features = datasets.Features({"text": datasets.Value("string")})
    return features, _chunks(files, features, notes)


def _chunks(files: Sequence[Path], features: "Features", notes: list[str]) -> Tables:
    import pyarrow as pa

    chunk, size = list[str](), 0

    def table() -> Any:
        return pa.Table.from_arrays([pa.array(chunk, pa.string())], schema=features.arrow_schema)

    for file in files:
        alone, others = list[int](), False
        for number, line in enumerate(lines_of(file), 1):
            if line.endswith("\r"):
                alone.append(number)
            others = others or line.endswith("\n")
            text = line.rstrip("\r\n")
            chunk.append(text)
            size += len(text)
            if len(chunk) == CHUNK_ROWS or size > CHUNK_CHARACTERS:
                yield table()
                chunk, size = [], 0
        if alone and others:
            notes.append(
                f"{shown(file)}: {len(alone)} lone carriage returns are read as the ends of lines, "
                f"as line feeds are, the first at the end of line {alone[0]}"
            )
    if chunk:
        yield table()
