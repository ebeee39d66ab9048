"""Inputs: the task, tokenizer, model configuration and encoded splits of a recipe."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.assembly.columns_read import digest_of_rows, identifying_columns, unread_columns
from trainer.assembly.deciding_metric import check_metric, keeps_worst
from trainer.assembly.run_tokenizer import build_tokenizer
from trainer.data.columns import check_columns, resolve_columns
from trainer.data.encoded import PreparedSplit, Summary, encode_once
from trainer.data.overlap import notes_on_overlap
from trainer.data.sources import load_splits, rows_digest
from trainer.errors import DataError, TrainerError
from trainer.files.cache import content_key
from trainer.files.kept_folder import only_kept
from trainer.models.architecture import build_model_config
from trainer.models.positions import check_length
from trainer.models.pretrained.model_folder import check_origin
from trainer.models.tokenizers.pair_separator import separate_pairs
from trainer.models.tokenizers.tokenizer import tokenizer_digest
from trainer.process.switches import hub_offline
from trainer.recipe.schema import Recipe
from trainer.tasks import task_of
from trainer.tasks.base import Task
from trainer.tasks.unlabelled import lacks_column, lacks_targets

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Inputs:
    """What a run needs besides weights and an engine; built without a device or other processes."""

    task: Task
    tokenizer: Any
    model_config: Any
    """The model's transformers configuration, with the values that the task sets."""
    splits: dict[str, PreparedSplit]
    notes: tuple[str, ...]
    """What a reader of the results should know about the data, a sentence each."""


def build_inputs(
    recipe: Recipe, directory: Path | None, other_rows: "Mapping[str, Dataset] | None" = None
) -> Inputs:
    """Returns the inputs of a recipe, read from the caches if they are there.

    A tokenizer that the run trains is also kept in the run directory, if one is given. `other_rows`
    are splits in addition to the recipe's. Raises ConfigError or DataError if recipe, data and
    model do not fit together.
    """
    check_origin(recipe.model)
    kind = task_of(recipe)
    rows, notes = _load_rows(recipe, kind, other_rows)
    task, tokenizer, model_config, reading = _build_task(recipe, kind, rows["train"], directory)
    test_named = recipe.data.split.test != "auto"
    rows, without_targets = lacks_targets(task, rows, test_named=test_named)
    check_metric(recipe, task, rows)
    identifying = identifying_columns(rows, recipe)
    overlap = notes_on_overlap(rows, identifying) if identifying else []
    splits, encoding = prepare_splits(rows, task, recipe, tokenizer)
    notes += [*without_targets, *overlap, *reading, *encoding]
    problem = keeps_worst(recipe)
    if problem is not None:  # new runs are refused; an older one resumes as it was started
        notes.append(f"{problem}, as when this run was started")
    return Inputs(task, tokenizer, model_config, splits, tuple(notes))


@dataclass(frozen=True, kw_only=True)
class KeptData:
    """What the caches hold of a recipe's data."""

    num_rows: dict[str, int]
    """Number of rows of each split; empty if the rows cannot be read."""
    splits: dict[str, PreparedSplit]
    """The tokenised splits; empty unless all of them are kept."""
    vocabulary: int | None
    """Rows of the model's vocabulary; None if the tokenizer is not kept."""


def kept_data(recipe: Recipe) -> KeptData:
    """Returns what the caches hold of a recipe's data; never fails for what is missing.

    Nothing is fetched, tokenised or written, and no contents of cached files are verified.
    """
    rows: dict[str, Dataset] = {}
    splits: dict[str, PreparedSplit] = {}
    vocabulary: int | None = None
    with only_kept(), hub_offline(), suppress(TrainerError, OSError):
        check_origin(recipe.model)
        kind = task_of(recipe)
        rows, _ = _load_rows(recipe, kind, None)
        task, tokenizer, model_config, _ = _build_task(recipe, kind, rows["train"], None)
        vocabulary = model_config.get_text_config().vocab_size
        named = recipe.data.split.test != "auto"
        measured, _ = lacks_targets(task, rows, test_named=named)
        splits, _ = prepare_splits(measured, task, recipe, tokenizer)
    num_rows = {name: len(part) for name, part in rows.items()}
    return KeptData(num_rows=num_rows, splits=splits, vocabulary=vocabulary)


def prepare_splits(
    rows: "dict[str, Dataset]", task: Task, recipe: Recipe, tokenizer: Any
) -> tuple[dict[str, PreparedSplit], list[str]]:
    """Returns each split tokenised, read from the cache if it is there, and notes about them."""
    digest, notes = tokenizer_digest(tokenizer), list[str]()
    splits: dict[str, PreparedSplit] = {}
    for name, part in rows.items():
        content = digest_of_rows(part, recipe)
        key = _content_key(part, content, task, recipe, digest)
        summary = Summary(recipe.data.on_bad_example)
        try:
            split = encode_once(key, lambda counted, part=part: task.encode(part, counted), summary)
        except DataError as error:
            located = error.after(f"the {name} split, ")
            located.key = located.key or name
            raise located from error
        splits[name] = replace(split, rows=part, digests={"rows": content, **split.digests})
        notes += _notes_on_encoding(name, split.summary)
        notes += task.notes(name, splits[name])
        remarks = split.summary.remarks.values()
        notes += [f"{count} {name} rows {what}" for count, what in remarks]
    return splits, notes


def _load_rows(
    recipe: Recipe, kind: type[Task], other_rows: "Mapping[str, Dataset] | None"
) -> "tuple[dict[str, Dataset], list[str]]":
    """Returns the rows of each split, with the task's columns flattened, and notes about them."""
    rows, left_out = load_splits(recipe.data)
    rows |= other_rows or {}
    rows, unlabelled = lacks_column(kind.target, kind.columns(recipe), rows)
    for name, part in rows.items():
        columns = kind.columns_in(recipe, part.column_names)
        check_columns({name: part}, columns, section="")
        rows[name] = resolve_columns(part, columns)
    return rows, [*left_out, *unlabelled]


def _build_task(
    recipe: Recipe, kind: type[Task], train: "Dataset", directory: Path | None
) -> tuple[Task, Any, Any, list[str]]:
    """Returns the task, its tokenizer, the model's configuration, and notes on what is read."""
    tokenizer = build_tokenizer(recipe, train, directory)
    model_config = build_model_config(recipe.model, tokenizer)
    check_length(model_config, recipe.batch.max_seq_length)
    notes = [*unread_columns(train, recipe), *_separate(recipe, kind, tokenizer)]
    task = kind.build(recipe, train, tokenizer, model_config)
    for name, value in task.config_values().items():
        setattr(model_config, name, value)
    return task, tokenizer, model_config, notes


def _separate(recipe: Recipe, kind: type[Task], tokenizer: Any) -> list[str]:
    """Makes the tokenizer separate pairs, if the task reads pairs; returns a note about it."""
    pair = kind.pair(recipe)
    if pair is None:
        return []
    note = separate_pairs(tokenizer, getattr(recipe.task, "pair_separator", None), pair)
    return [note] if note else []


def _content_key(
    rows: "Dataset", content: str, task: Task, recipe: Recipe, tokenizer_digest: str
) -> str:
    """Returns the name of a tokenised split in the cache: a hash of everything it depends on."""
    optional = [column for column in task.optional_columns if column in rows.column_names]
    return content_key(
        rows=content,
        tokenizer=tokenizer_digest,
        on_bad_example=recipe.data.on_bad_example,
        **({"also": rows_digest(rows, optional)} if optional else {}),
        # Omitted if parsed, so that splits from before this setting existed keep their names.
        **({"special_tokens": "literal"} if recipe.data.special_tokens == "literal" else {}),
        **task.encoding_settings(),
    )


def _notes_on_encoding(name: str, summary: Summary) -> list[str]:
    notes: list[str] = []
    if summary.num_truncated:
        notes.append(
            f"{summary.num_truncated} {name} examples were truncated; the longest has "
            f"{summary.longest} tokens"
        )
    if summary.num_skipped:
        notes.append(
            f"{summary.num_skipped} bad {name} examples were skipped; the first: "
            f"{summary.first_skipped}"
        )
    return notes
