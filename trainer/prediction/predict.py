"""Predictions: answers to rows in memory, to a stream of rows, or from a file to a file."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.data.formats.reading import shown
from trainer.data.streamed_rows import Row, holds_lines, plain, streamed_rows
from trainer.errors import DataError, TrainerError
from trainer.files.plain import remove
from trainer.prediction.answering import Answering, Block, blocks_of
from trainer.prediction.identity import identity_of
from trainer.prediction.loading import LoadedModel
from trainer.prediction.output_file import join
from trainer.prediction.parts import Say, parts_of, waiting_limit
from trainer.prediction.source import Source
from trainer.tasks.predictor import Predictor
from trainer.tasks.reported import Record
from trainer.wording import excerpt

KEPT = "input_"
"""Prefix of an input's column that has the name of a part of the answer."""


def answers_to(loaded: LoadedModel, inputs: Iterable[Any]) -> list[Record]:
    """Returns the answer to each input: a text, a tuple of texts, or a mapping of columns or roles.

    Raises DataError for an input that has no answer; if the recipe skips bad rows, its answer is
    its `problem`.
    """
    if isinstance(inputs, str | bytes | Mapping):
        raise DataError(
            f"inputs is a {type(inputs).__name__}", key="inputs", hint="give a list of inputs"
        )
    rows = (_row_of(loaded.predictor, value, n) for n, value in enumerate(inputs, 1))
    answering = Answering(loaded, by_role=True)
    return [answer for block in blocks_of(rows) for answer in answering.answers(block)]


def answered_rows(
    loaded: LoadedModel, rows: Iterable[Row], *, by_role: bool = False
) -> Iterator[Row]:
    """Yields each row of an input, in order, with its answer; a block of rows is in memory.

    `by_role` says whether rows may have the names of roles in place of columns.
    """
    answering = Answering(loaded, by_role=by_role)
    for block in blocks_of(rows):
        yield from _with_answers(answering, block)


def predict_file(
    source: Source,
    loaded: LoadedModel,
    file: Path,
    output: Path,
    *,
    say: Say,
    progress: Callable[[int], None] | None = None,
) -> int | None:
    """Writes the rows of a file with their answers to `output`, and returns how many there are.

    Several processes of a launch divide the blocks; those other than the main process return None
    once theirs are written. A command that was killed continues if model, input and settings are
    the same. `say` is called with what a user should know, and `progress` with the number of rows
    so far. Raises DataError for a row that has no answer, unless the recipe skips bad rows.
    """
    answering = Answering(loaded, by_role=holds_lines(file))
    with parts_of(output, lambda: identity_of(file, source, loaded), say) as parts:
        if parts.present and parts.rank == 0:
            say(f"{len(parts.present):,} blocks are answered already")
        num_blocks = num_rows = 0
        for block in blocks_of(streamed_rows(file, loaded.recipe.data.source.csv)):
            if block.number == 0:
                answering.read_columns(block)
            if parts.lacks(block.number):
                try:
                    rows = _with_answers(answering, block)
                except TrainerError as error:
                    if parts.rank:  # only the main process prints what it raises
                        say(str(error))
                    raise
                parts.write(block.number, rows)
            num_blocks, num_rows = block.number + 1, num_rows + len(block.rows)
            if progress is not None:
                progress(num_rows)
        if parts.rank:
            return None
        if not num_rows:
            raise DataError(f"no rows in {shown(file)}", key=shown(file))
        join(parts.wait_for(num_blocks, waiting_limit()), output)
        remove(parts.folder)
    return num_rows


def _row_of(predictor: Predictor, value: Any, number: int) -> Row:
    if isinstance(value, Mapping):
        return plain(value)
    texts: Sequence[Any] = value if isinstance(value, tuple | list) else (value,)
    roles = list(predictor.columns)
    if not all(isinstance(text, str) for text in texts) or len(texts) != len(roles):
        raise DataError(
            f"input {number} is {excerpt(repr(value), 60)}",
            key="inputs",
            value=value,
            hint=f"this model reads {', '.join(roles)}: give "
            f"{'a text' if len(roles) == 1 else 'a tuple of texts'}, or a dict of columns",
        )
    return predictor.of_texts(texts)


def _with_answers(answering: Answering, block: Block) -> list[Row]:
    """Returns the rows of a block with their answers; a column that has the name of a part of an
    answer gets KEPT in front."""
    answers = answering.answers(block)
    return [
        {**_renamed(row, answering.names), **answer}
        for row, answer in zip(block.rows, answers, strict=True)
    ]


def _renamed(row: Row, taken: Sequence[str]) -> Row:
    kept: Row = {}
    for name, value in row.items():
        new = name
        while new in taken or (new != name and new in row):
            new = f"{KEPT}{new}"
        kept[new] = value
    return kept
