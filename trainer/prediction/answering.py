"""Answers to a block of rows: encoded, read in batches of similar length, put back in order."""

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from trainer.data.columns import column_name, has_column, value_in
from trainer.data.encoded import PreparedSplit, Summary, encode_in_memory
from trainer.data.streamed_rows import Row, dataset_of, plain
from trainer.errors import DataError
from trainer.prediction.loading import LoadedModel, computing
from trainer.process.out_of_memory import is_out_of_memory, out_of_memory
from trainer.recipe.data import Column
from trainer.tasks.reported import Record
from trainer.wording import excerpt, listed

BLOCK_ROWS, BLOCK_CHARACTERS = 4096, 16 * 2**20
"""Maximum size of a block: the rows that are in memory, and sorted by length, together."""
TOKENS = 16_384
"""Tokens that a GPU reads at a time; a batch has at least as many rows as in an evaluation."""
PROBLEM = "problem"
"""What a row without an answer has in place of one."""
ADVICE = "use a smaller --batch-size or batch.max_seq_length, or give the process more memory"


@dataclass(frozen=True)
class Block:
    """Rows that follow each other in the input."""

    number: int
    first: int
    """Number of its first row in the input, from 1."""
    rows: list[Row]


def blocks_of(rows: Iterable[Row]) -> Iterator[Block]:
    """Yields the rows of an input in blocks, which depend on the rows alone."""
    number, first, kept, size = 0, 1, list[Row](), 0
    for row in rows:
        kept.append(row)
        size += sum(len(v if isinstance(v, str) else str(v)) for v in row.values())
        if len(kept) == BLOCK_ROWS or size > BLOCK_CHARACTERS:
            yield Block(number, first, kept)
            number, first, kept, size = number + 1, first + len(kept), [], 0
    if kept:
        yield Block(number, first, kept)


class Answering:
    """Answers the blocks of one input by a loaded model.

    The columns that are read follow from the first block. The size of a batch halves each time that
    memory runs out.
    """

    def __init__(self, loaded: LoadedModel, *, by_role: bool = False) -> None:
        """`by_role` says whether rows may have the names of roles in place of columns."""
        self.loaded = loaded
        self.by_role = by_role
        self.skips_bad = loaded.recipe.data.on_bad_example == "skip"
        self.batch_size = loaded.batch_size
        self.tokens = 0 if loaded.device.type == "cpu" else TOKENS
        self._columns: Mapping[str, Column] | None = None

    def read_columns(self, block: Block) -> None:
        """Decides which columns are read, from the first block of an input.

        Raises DataError, with the nearest name, for a column that none of its rows has.
        """
        present = list(dict.fromkeys(name for row in block.rows for name in row))
        predictor = self.loaded.predictor
        columns = predictor.columns_in(present)
        for role, column in columns.items():
            for name in (column,) if isinstance(column, str) else column:
                if not any(self._has(row, role, name) for row in block.rows):
                    raise self._absent(role, name, present)
        self._columns = columns

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what an answer may hold."""
        fields = self.loaded.predictor.fields
        return (*fields, PROBLEM) if self.skips_bad else fields

    def answers(self, block: Block) -> list[Record]:
        """Returns the answer to each row of a block or, if bad rows are skipped, its problem.

        Raises DataError for a row that has no answer, unless bad rows are skipped.
        """
        if self._columns is None:
            self.read_columns(block)
        summary = Summary("skip" if self.skips_bad else "error")
        answers = self._answered(block.rows, block.first, summary)
        return [
            answers.get(index) or {PROBLEM: self._problem(block, index)}
            for index in range(len(block.rows))
        ]

    def _answered(self, rows: Sequence[Row], first: int, summary: Summary) -> dict[int, Record]:
        columns = self._columns or {}
        values = [
            {
                column_name(column): self._value(row, role, column)
                for role, column in columns.items()
            }
            for row in rows
        ]
        predictor = self.loaded.predictor
        dataset = dataset_of(values, range(first, first + len(rows)))
        split = encode_in_memory(predictor.encode(dataset, summary), summary, dataset)
        if not split.columns:
            return {}
        records: list[Record] = []
        start, order = 0, np.argsort(split.lengths, kind="stable")
        lengths = split.lengths[order]
        while start < len(order):
            size = self._size_at(lengths, start)
            records += self._records(split, order[start : start + size])
            start += size
        answers = predictor.answers(records, split)
        if any(plain(answer) != answer for answer in answers.values()):
            precision = self.loaded.precision
            raise DataError(
                f"the model answers with numbers that are not finite in {precision}",
                key="precision",
                value=precision,
                hint="set precision=fp32, or use another checkpoint of the model",
            )
        return answers

    def _records(self, split: PreparedSplit, ids: np.ndarray) -> list[Record]:
        loaded = self.loaded
        try:
            with computing(loaded):
                return loaded.predictor.records(loaded.model, split, ids)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if len(ids) == 1:
                raise out_of_memory(error, "answering", advice=ADVICE) from error
        torch.cuda.empty_cache()  # does nothing without a GPU
        half = len(ids) // 2
        self.batch_size = max(min(self.batch_size, half), 1)
        self.tokens = min(self.tokens, half * int(split.lengths[ids].max()))
        return self._records(split, ids[:half]) + self._records(split, ids[half:])

    def _size_at(self, lengths: np.ndarray, start: int) -> int:
        """Returns how many examples the next batch has; `lengths` ascend."""
        most = max(self.batch_size, self.tokens // max(int(lengths[start]), 1))
        last = int(lengths[min(start + most, len(lengths)) - 1])
        return max(self.batch_size, self.tokens // max(last, 1))

    def _problem(self, block: Block, index: int) -> str:
        """Returns why a row has no answer."""
        number = block.first + index
        try:
            self._answered([block.rows[index]], number, Summary("error"))
        except DataError as error:
            return error.message
        raise AssertionError(f"row {number} has no answer")

    def _absent(self, role: str, name: str, present: Sequence[str]) -> DataError:
        key = self.loaded.predictor.key_of(role)
        near = difflib.get_close_matches(name, present, n=1, cutoff=0.4)
        named = key.startswith("data.columns.")
        way = f"set it by --set {key}=NAME" if named else f"call one of them {excerpt(name)}"
        return DataError(
            f"{key}: the input has no column {excerpt(name)}; it has {listed(present) or 'none'}",
            key=key,
            value=name,
            hint=f"did you mean {excerpt(near[0])}?" if near else way,
        )

    def _has(self, row: Row, role: str, column: Column) -> bool:
        return has_column(row, column) or self._role_in(row, role) is not None

    def _value(self, row: Row, role: str, column: Column) -> Any:
        named = None if has_column(row, column) else self._role_in(row, role)
        return value_in(row, column) if named is None else row[named]

    def _role_in(self, row: Row, role: str) -> str | None:
        """Returns the name under which a row holds a role in place of its column, if it may."""
        alone = len(self.loaded.predictor.columns) == 1
        names = (role, "text") if alone else (role,)
        return next((name for name in names if self.by_role and name in row), None)
