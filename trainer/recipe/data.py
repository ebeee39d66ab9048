"""The section `data` of a recipe: source, columns and splits."""

import codecs
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    SerializeAsAny,
    Tag,
    field_validator,
    model_validator,
)

from trainer.recipe.places import existing_name, folder_or_name
from trainer.recipe.section import ListOf, PositiveInt, Section, Seed


class Csv(Section):
    delimiter: str | None = None
    """Character between cells; null is a comma in .csv and a tab, "\\t", in .tsv."""
    quotechar: str | None = "auto"
    """Character that encloses cells; null reads quotes as text. `auto` is " in .csv and null in
    .tsv."""
    encoding: str = "utf-8"
    """Encoding of the text, such as latin-1 or utf-16."""
    header: bool = True
    """Whether the first line names the columns; otherwise they are called "0", "1" and so on."""

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        for name, value in (("delimiter", self.delimiter), ("quotechar", self.quotechar)):
            if value not in (None, "auto") and (len(value) != 1 or value in "\r\n\0"):
                raise ValueError(
                    f'{name} {value[:20]!r} is not one character; a tab is "\\t" in double quotes'
                )
        if self.delimiter is not None and self.delimiter == self.quotechar:
            raise ValueError("delimiter and quotechar are the same")
        try:
            codec = codecs.lookup(self.encoding)
        except (LookupError, ValueError):  # ValueError: a NUL in the name
            codec = None
        if codec is None or not getattr(codec, "_is_text_encoding", True):
            raise ValueError(f"encoding {self.encoding[:40]!r} is unknown; use utf-8 or latin-1")
        return self


class Source(Section):
    hub: str | None = None
    """Name of a hub data set, or a folder that holds one."""
    config: str | None = None
    """Name of a configuration (subset) of the hub data set."""
    revision: str | None = None
    """Commit, tag or branch of the hub data set."""
    files: dict[str, str | ListOf[str]] | None = None
    """For each split, a file, a folder, or a list of them."""
    csv: Csv | None = None
    """How to read .csv and .tsv files that differ from the usual format."""
    builtin: str | None = None
    """Name of a generator that comes with the package."""
    num_rows: Annotated[int, Field(gt=0, le=10_000_000)] = 6000
    """Number of train rows that a built-in generator draws."""
    seed: Seed = 1
    """Seed of a built-in generator."""

    @field_validator("hub")
    @classmethod
    def _a_folder_is_absolute(cls, hub: str | None) -> str | None:
        return hub if hub is None else folder_or_name("data.source.hub", hub)

    @field_validator("files")
    @classmethod
    def _files_are_absolute(
        cls, files: dict[str, str | tuple[str, ...]] | None
    ) -> dict[str, str | tuple[str, ...]] | None:
        def absolute(split: str, path: str) -> str:
            return str(existing_name(f"data.source.files.{split}", path).absolute())

        if files is None:
            return None
        return {
            split: absolute(split, paths)
            if isinstance(paths, str)
            else tuple(absolute(split, path) for path in paths)
            for split, paths in files.items()
        }

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if [self.hub, self.files, self.builtin].count(None) != 2:
            raise ValueError("give exactly one of hub, files and builtin")
        if self.files is not None and "train" not in self.files:
            raise ValueError("files needs a train entry")
        if self.hub is None and (self.config or self.revision):
            raise ValueError("config and revision go with hub only")
        if self.files is None and self.csv is not None:
            raise ValueError("csv goes with files only")
        for split, paths in (self.files or {}).items():
            if not paths:
                raise ValueError(f"files.{split[:40]} is empty; name a file or a folder")
        return self


def _column_kind(value: Any) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


Column = Annotated[
    Annotated[str, Tag("one")] | Annotated[ListOf[str], Field(min_length=1), Tag("several")],
    Discriminator(_column_kind),
]


class Columns(Section):
    """The column of each role. `article.body` names the field body of the column article.

    A task from another package may subclass this with roles of its own.
    """

    text: Column = "text"
    """The text. The texts of several columns are joined by line breaks; empty ones are left out."""
    text_pair: Column | None = None
    """The second text of a pair. Several columns are joined as for text."""
    label: str = "label"
    """The class of a row."""
    id: str = "id"
    """The identifier of a question."""
    question: str = "question"
    """The question about the context."""
    context: str = "context"
    """The text that holds the answer."""
    answers: str = "answers"
    """The answers: an object with the lists text and answer_start, as in SQuAD on the hub; an
    object with one text and one answer_start; a list of such objects; or any of these as JSON
    text."""
    messages: str = "messages"
    """The conversation: a list of objects with role and content, or with ShareGPT's from and value;
    or such a list as JSON text. Rows without this column may have such lists in the columns prompt
    and completion; the completion is trained on."""
    tools: str | None = "tools"
    """Tool definitions for the chat template: a list, or JSON text. Read if the column exists."""
    system: str | None = "system"
    """The system prompt, which is put before the messages. Read if the column exists."""


class Ratio(Section):
    ratio: Annotated[float, Field(gt=0, lt=1)]
    """Share of the train rows that is moved to this split."""
    seed: Seed = 1
    """Seed of the draw."""


def _split_kind(value: Any) -> str:
    return "ratio" if isinstance(value, dict | Ratio) else "name"


SplitOrigin = (
    Annotated[
        Annotated[str, Tag("name")] | Annotated[Ratio, Tag("ratio")], Discriminator(_split_kind)
    ]
    | None
)


class Split(Section):
    validation: SplitOrigin = "auto"
    """A split of the source by name, {ratio, seed} for a part of its train split, or null for none.
    `auto` is the source's validation split if it has one, otherwise a tenth of its train split."""
    test: SplitOrigin = "auto"
    """The same for the test split. `auto` is the source's test split if it has one, otherwise
    none."""


Excluded = Annotated[ListOf[str | int | float], Field(min_length=1)]


class Data(Section):
    source: Source
    """Where the rows come from: exactly one of hub, files and builtin."""
    columns: SerializeAsAny[Columns] = Columns()
    """The columns that the task reads, by role."""
    split: Split = Split()
    """Where the validation and the test split come from."""
    exclude: dict[str, Excluded] = Field(default={})
    """Rows to leave out: for each column the values, such as {label: [-1]}. 1, 1.0 and "1" are the
    same value, and a class may be given by its name."""
    documents: Literal["rows", "blank_lines", "headings"] = "rows"
    """What starts a document: each row, an empty row, or a title such as WikiText's = Title =."""
    max_rows: PositiveInt | None = None
    """Number of rows to keep, the first of each split of the source, after exclude; null keeps
    all."""
    special_tokens: Literal["literal", "parsed"] = "literal"
    """How to read text that spells a special token, such as </s> or [MASK]: as text, or as the
    token. In templates of the recipe and chat templates it is always the token."""
    on_bad_example: Literal["error", "skip"] = "error"
    """What to do with a row that cannot be trained on, such as an empty text: stop with an error,
    or skip it and report how many were skipped."""
    length_bucketing: bool = True
    """Put examples of similar length into one batch, which saves padding."""
