"""What a run begins with: task, tokenizer, shape of the model and encoded splits of a recipe."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.data.columns import ROW, check_columns, column_name, resolve_columns
from trainer.data.encoded import PreparedSplit, Summary, encode_once
from trainer.data.overlap import notes_on_overlap
from trainer.data.sources import load_splits, rows_digest
from trainer.errors import ConfigError, DataError
from trainer.files.cache import cache_folder, content_key
from trainer.files.kept_folder import write_once
from trainer.models.architecture import build_model_config
from trainer.models.positions import check_length
from trainer.models.pretrained.model_folder import check_origin
from trainer.models.tokenizers.pair_separator import separate_pairs
from trainer.models.tokenizers.tokenizer import load_tokenizer, tokenizer_digest, train_tokenizer
from trainer.recipe.schema import Column, Recipe, TrainedTokenizer, smaller_is_better
from trainer.recipe.task_settings import OtherTask
from trainer.tasks import task_of
from trainer.tasks.base import Task
from trainer.tasks.unlabelled import lacks_column, lacks_targets
from trainer.wording import listed

if TYPE_CHECKING:
    from datasets import Dataset


MAY_MATTER = frozenset(
    "tools functions documents system instruction input output response prompt completion messages "
    "conversations chosen rejected text_pair sentence2 question2 hypothesis premise context weight "
    "weights sample_weight target targets history".split()
)
"""Names of columns that usually change what a row means."""


@dataclass(frozen=True)
class Inputs:
    """All of a run that needs no weights, no device and no other process."""

    task: Task
    tokenizer: Any
    model_config: Any
    """The transformers configuration, with what the task sets in it."""
    splits: dict[str, PreparedSplit]
    notes: tuple[str, ...]
    """What a reader of the results should know of the data."""


def build_inputs(
    recipe: Recipe, directory: Path | None, other_rows: "Mapping[str, Dataset] | None" = None
) -> Inputs:
    """Returns the inputs of a recipe, from the caches where they are there.

    A tokenizer that is trained here is also kept in the run directory, where there is one. Raises
    ConfigError and DataError for whatever in recipe and data cannot go together.
    """
    check_origin(recipe.model)
    kind = task_of(recipe)
    rows, left_out = load_splits(recipe.data)
    rows |= other_rows or {}
    rows, unlabelled = lacks_column(kind.target, kind.columns(recipe), rows)
    for name, part in rows.items():
        columns = kind.columns_in(recipe, part.column_names)
        check_columns({name: part}, columns, section="")
        rows[name] = resolve_columns(part, columns)
    tokenizer = build_tokenizer(recipe, rows["train"], directory)
    model_config = build_model_config(recipe.model, tokenizer)
    check_length(model_config, recipe.batch.max_seq_length)
    pair, said = kind.pair(recipe), [*unread_columns(rows["train"], recipe)]
    if pair is not None:
        separator = getattr(recipe.task, "pair_separator", None)
        said += filter(None, [separate_pairs(tokenizer, separator, pair)])
    task = kind.build(recipe, rows["train"], tokenizer, model_config)
    for name, value in task.config_values().items():
        setattr(model_config, name, value)
    rows, without_targets = lacks_targets(task, rows, test_named=recipe.data.split.test != "auto")
    _check_metric(recipe, task, rows)
    shared = [one for one in rows["train"].column_names if _in_all(one, rows)]
    told_apart = _told_apart_by(kind, kind.columns_in(recipe, shared))
    compared = bool(told_apart) and set(told_apart) <= set(shared)
    overlap = notes_on_overlap(rows, told_apart) if compared else []
    splits, notes = prepare_splits(rows, task, recipe, tokenizer)
    keeps_worst = _keeps_worst(recipe)
    if keeps_worst is not None:  # a run that was begun before this was refused
        notes.append(f"{keeps_worst}, as this run was begun")
    found = (*left_out, *unlabelled, *without_targets, *overlap, *said, *notes)
    return Inputs(task, tokenizer, model_config, splits, found)


def _in_all(column: str, rows: "dict[str, Dataset]") -> bool:
    return all(column in part.column_names for part in rows.values())


def _told_apart_by(kind: type[Task], columns: Mapping[str, Column | None]) -> list[str]:
    """Returns the columns of what a task reads of a row, without its name and its target."""
    left_out = ("data.columns.id", kind.target)
    return [
        column_name(column) for key, column in columns.items() if column and key not in left_out
    ]


def build_tokenizer(recipe: Recipe, train: "Dataset", directory: Path | None) -> Any:
    """Returns the tokenizer; one that is trained here is kept in the cache, and in the run
    directory, where there is one."""
    settings = recipe.model.tokenizer
    if not isinstance(settings, TrainedTokenizer):
        return load_tokenizer(recipe.model)

    def in_cache() -> Path:
        key = content_key(
            rows=digest_of_rows(train, recipe),
            task=recipe.task.name,  # it chooses the texts of those columns
            columns=task_of(recipe).columns(recipe),
            tokenizer=settings.model_dump(),
        )
        texts = _TrainTexts(recipe, train)
        return write_once(
            cache_folder() / "tokenizers" / key,
            lambda folder: train_tokenizer(settings, texts, folder),
        )

    if directory is None:
        kept = in_cache()
    else:  # older versions kept it there without a manifest
        kept = write_once(
            directory / "tokenizer", lambda folder: _copy(in_cache(), folder), accept_unlisted=True
        )
    model = recipe.model.model_copy(update={"tokenizer": str(kept)})
    return load_tokenizer(model)


@dataclass(frozen=True)
class _TrainTexts:
    """The texts of the train rows, read anew each time: they need not fit into memory."""

    recipe: Recipe
    rows: "Dataset"

    def __iter__(self) -> Iterator[str]:
        return task_of(self.recipe).texts(self.recipe, self.rows)


def prepare_splits(
    rows: "dict[str, Dataset]", task: Task, recipe: Recipe, tokenizer: Any
) -> tuple[dict[str, PreparedSplit], list[str]]:
    """Returns each split tokenised, from the cache where it is there, and notes on them."""
    digest, notes = tokenizer_digest(tokenizer), list[str]()
    bad = recipe.data.on_bad_example
    splits: dict[str, PreparedSplit] = {}
    for name, part in rows.items():
        also = [column for column in task.reads_if_there if column in part.column_names]
        content = digest_of_rows(part, recipe)
        key = content_key(
            rows=content,
            tokenizer=digest,
            on_bad_example=bad,
            **({"also": rows_digest(part, also)} if also else {}),
            # Rows that were prepared before there was a choice are parsed.
            **({"special_tokens": "literal"} if recipe.data.special_tokens == "literal" else {}),
            **task.encoding_settings(),
        )
        try:
            made = encode_once(
                key, lambda counted, part=part: task.encode(part, counted), Summary(bad)
            )
        except DataError as error:
            raise DataError(f"the {name} split, {error}") from error
        splits[name] = replace(made, rows=part, digests={"rows": content, **made.digests})
        counted = made.summary
        if counted.num_truncated:
            notes.append(
                f"{counted.num_truncated} {name} examples were truncated; the longest has "
                f"{counted.longest} tokens"
            )
        if counted.num_skipped:
            notes.append(
                f"{counted.num_skipped} bad {name} examples were skipped; the first: "
                f"{counted.first_skipped}"
            )
        notes += task.notes(name, splits[name])
        notes += [f"{count} {name} rows {what}" for count, what in counted.remarks.values()]
    return splits, notes


def digest_of_rows(rows: "Dataset", recipe: Recipe) -> str:
    """Returns what changes when the columns that a recipe reads do."""
    return rows_digest(rows, _names_read(rows, recipe))


def unread_columns(rows: "Dataset", recipe: Recipe) -> list[str]:
    """Returns a sentence on the columns that the recipe does not read, where one may matter."""
    read = {name.partition(".")[0] for name in _names_read(rows, recipe)}
    columns = recipe.data.columns
    joined = [name for name in (columns.text, columns.text_pair) if isinstance(name, tuple)]
    read |= {part.partition(".")[0] for names in joined for part in names}
    read |= set(task_of(recipe).reads_if_there)
    unread = [name for name in rows.column_names if name not in (*read, ROW)]
    if not any(name.lower() in MAY_MATTER for name in unread):
        return []
    return [f"columns of the train split that are not read: {listed(unread)}"]


def _names_read(rows: "Dataset", recipe: Recipe) -> list[str]:
    columns = task_of(recipe).columns_in(recipe, rows.column_names)
    return list(dict.fromkeys(column_name(one) for one in columns.values() if one is not None))


def _copy(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def check_mode(recipe: Recipe) -> None:
    """Raises ConfigError for a new run that would keep its worst step."""
    wrong = _keeps_worst(recipe)
    if wrong is not None:
        raise ConfigError(f"evaluation.mode: {wrong}; set mode: max")


def _keeps_worst(recipe: Recipe) -> str | None:
    """Returns a clause where the smallest value of a metric decides of which more is better.

    The metrics of other tasks than our own may be errors.
    """
    metric, mode = recipe.evaluation.metric, recipe.evaluation.mode
    if mode == "max" or smaller_is_better(metric) or isinstance(recipe.task, OtherTask):
        return None
    return f"min takes the step with the smallest {metric}, which is the worst, for the best"


def _check_metric(recipe: Recipe, task: Task, rows: "dict[str, Dataset]") -> None:
    if recipe.evaluation.metric not in task.metrics_offered:
        raise ConfigError(
            f"evaluation.metric: {recipe.evaluation.metric!r} is none of "
            f"{', '.join(task.metrics_offered)}"
        )
    if smaller_is_better(recipe.evaluation.metric) and recipe.evaluation.mode == "max":
        raise ConfigError(
            f"evaluation.mode: the best {recipe.evaluation.metric} is the smallest; set mode: min"
        )
    metric = recipe.evaluation.metric
    lacks = task.lacks_metric(metric, rows["validation"]) if "validation" in rows else None
    if lacks is not None:
        raise ConfigError(
            f"evaluation.metric: {metric} cannot be measured on the validation split, for {lacks}; "
            f"choose another, or another data.split.validation"
        )
    if recipe.evaluation.patience is not None and "validation" not in rows:
        raise ConfigError("evaluation.patience needs a validation split; set data.split.validation")
