"""The model that answers: of a run, in a folder or on the hub, with its tokenizer and predictor."""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, cast

import torch

from trainer.engines.micro_batch import AUTO_MICRO_BATCH
from trainer.engines.precision import COMPUTE_DTYPES, Precision, resolve_precision
from trainer.errors import CheckpointError, ConfigError
from trainer.files.plain import read_json
from trainer.models.architecture import stored_config
from trainer.models.positions import num_positions
from trainer.models.pretrained.model_folder import check_hub_adapter, check_origin, shown
from trainer.models.pretrained.not_loaded import not_loaded
from trainer.models.quiet import quiet_transformers
from trainer.models.span_head import ensure_span_head
from trainer.models.speedups.first_token import compute_first_token_alone
from trainer.models.tokenizers.pair_separator import separate_pairs
from trainer.models.tokenizers.tokenizer import ensure_pad_token, load_tokenizer, num_rows
from trainer.process.run_directory import read_recipe
from trainer.recipe.model import Model
from trainer.recipe.reading import with_value
from trainer.recipe.yaml12 import read_yaml
from trainer.tasks import task_of
from trainer.tasks.predictor import Predictor
from trainer.tasks.recipe import Recipe, parse_recipe
from trainer.wording import excerpt

HEADS = {
    "ForSequenceClassification": "classification",
    "ForQuestionAnswering": "question_answering",
    "ForMaskedLM": "masked_lm",
    "ForPreTraining": "masked_lm",
    "ForCausalLM": "causal_lm",
    "LMHeadModel": "causal_lm",
}
"""The task that a model without a recipe answers, by the end of its class's name."""
LONGEST = 512
"""Tokens of the longest example for a model without a recipe, unless it has fewer positions."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a model is, and the recipe that says how it reads rows."""

    model: str
    """A folder that `from_pretrained` reads, or a name on the hub."""
    revision: str | None = None
    """Commit, tag or branch on the hub."""
    recipe: Recipe
    precision: Precision
    validation: Mapping[str, Any]
    """The metrics of the model on the validation split of its run; empty without a run."""
    of_run: bool


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A model in evaluation mode on its device, and what turns rows into its answers."""

    model: Any
    tokenizer: Any
    predictor: Predictor
    recipe: Recipe
    precision: Precision
    batch_size: int
    """Examples that the model reads at a time."""

    @property
    def device(self) -> torch.device:
        return self.model.device


@contextmanager
def computing(loaded: LoadedModel) -> Generator[None]:
    """Context manager: the model computes as in an evaluation, in its precision and without
    gradients."""
    dtype = COMPUTE_DTYPES[loaded.precision]
    kind, mixed = loaded.device.type, loaded.precision != "fp32"
    with torch.no_grad(), torch.autocast(kind, dtype=dtype, enabled=mixed):
        yield


def find_source(run_dir_or_model: str | Path, overrides: Sequence[str] = ()) -> Source:
    """Returns where the model of a run is, or of a folder or hub name; reads no weights.

    `overrides` are `key.path=value`, as for a recipe. Raises a TrainerError if there is no model.
    """
    folder = Path(run_dir_or_model)
    if _is_file(folder / "config.yaml"):
        return _of_run(folder.absolute(), overrides)
    return _of_model(str(run_dir_or_model), overrides)


def load_source(
    source: Source, batch_size: int | None = None, *, chat_template: Any = None
) -> LoadedModel:
    """Returns the model of a source on the device of this process.

    `batch_size` is by default that of the run's evaluations. `chat_template` is used if the
    tokenizer has none. Raises ConfigError if files are
    damaged, or do not fit the task.
    """
    settings = Model(name_or_path=source.model, revision=source.revision)
    config = stored_config(settings)
    tokenizer = load_tokenizer(settings)
    _check_tokenizer(source.model, tokenizer)
    tokenizer.chat_template = tokenizer.chat_template or chat_template
    kind = task_of(source.recipe)
    pair = kind.pair(source.recipe)
    if not source.of_run:
        ensure_pad_token(tokenizer, config.vocab_size, known_pad=config.pad_token_id)
        config.pad_token_id = tokenizer.pad_token_id
        _check_rows(source.model, tokenizer, config)
        if pair is not None:
            separate_pairs(tokenizer, getattr(source.recipe.task, "pair_separator", None), pair)
    if kind.predictor is None:
        raise ConfigError(
            f"the task {source.recipe.task.name} offers no predictions",
            key="task.name",
            value=source.recipe.task.name,
            hint="load the model with `trainer.load(run_dir).load()`",
        )
    build: type[Predictor] = EntryPoint("", kind.predictor, "").load()
    predictor = build.build(source.recipe, tokenizer, config, source.validation)
    model = _model(source, config)
    if predictor.needs_only_logits:
        compute_first_token_alone(model)
    return LoadedModel(
        model=model.to(_device()).eval(),
        tokenizer=tokenizer,
        predictor=predictor,
        recipe=source.recipe,
        precision=source.precision,
        batch_size=batch_size or _evaluation_batch(source.recipe),
    )


def _of_run(directory: Path, overrides: Sequence[str]) -> Source:
    recipe = read_recipe(directory, Recipe)
    model = directory / "model"
    if not _is_file(model / "config.json"):
        raise CheckpointError(
            f"{directory} has no model yet",
            key=str(directory),
            hint="train the run to its end",
        )
    try:
        results = read_json(directory / "results.json")
        validation = results["best"]["metrics"].get("validation", {})
        precision = results["precision"]
        assert precision in COMPUTE_DTYPES
        assert isinstance(validation, dict)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, AssertionError):
        validation, precision = {}, recipe.precision
    values = _overridden(recipe.model_dump(mode="json"), overrides)
    # An earlier version may have shipped or allowed what a recipe may no longer say of training.
    recipe = parse_recipe(values, str(directory / "config.yaml")) if overrides else recipe
    wanted = recipe.precision if "precision" in _keys(overrides) else precision
    return Source(
        model=str(model),
        recipe=recipe,
        precision=_possible(wanted),
        validation=validation,
        of_run=True,
    )


def _of_model(name: str, overrides: Sequence[str]) -> Source:
    settings = Model(name_or_path=name)
    _check_place(name)
    check_origin(settings)
    check_hub_adapter(name, None)
    config = stored_config(settings)
    architecture = next(iter(getattr(config, "architectures", None) or ["no class"]))
    task = next((task for end, task in HEADS.items() if architecture.endswith(end)), None)
    if task is None:
        raise ConfigError(
            f"{shown(name)} is a model of the class {excerpt(architecture)}, which answers nothing "
            f"by itself",
            key="MODEL",
            value=architecture,
            hint=f"name a model whose class ends in {', '.join(HEADS)}",
        )
    positions = num_positions(config) or LONGEST
    values: dict[str, Any] = {
        "model": {"name_or_path": name},
        "task": {"name": task},
        "data": {"source": {"builtin": "reviews"}},
        "batch": {"max_seq_length": min(LONGEST, positions)},
    }
    if task == "causal_lm" and load_tokenizer(settings).chat_template:
        values["task"]["chat"] = True
    recipe = parse_recipe(_overridden(values, overrides), shown(name))
    return Source(
        model=name,
        recipe=recipe,
        precision=_possible(recipe.precision),
        validation={},
        of_run=False,
    )


def _check_place(name: str) -> None:
    """Raises ConfigError for what looks like a path, but is not there."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") > 1 or name.endswith("/")
    try:
        exists = Path(name).exists()
    except (OSError, ValueError):
        exists, looks_local = False, True
    if (looks_local or not name.isprintable()) and not exists:
        raise ConfigError(
            f"there is no folder {shown(name if name.isprintable() else repr(name))}",
            key="MODEL",
            value=name,
            hint="name a run directory, the folder of a model, or a model on the hub",
        )


def _overridden(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or not all(key.split(".")):
            raise ConfigError(
                f"--set {excerpt(override)} is not an override",
                key="--set",
                value=override,
                hint="write it as key.path=value",
            )
        value = read_yaml(text, f"--set {excerpt(override)}", key="--set", value=override)
        values = with_value(values, key, value)
        if key.startswith("data.source.csv"):  # which goes with files only
            values["data"]["source"] = {
                "files": {"train": os.devnull},
                "csv": values["data"]["source"]["csv"],
            }
    return values


def _keys(overrides: Sequence[str]) -> list[str]:
    return [override.partition("=")[0] for override in overrides]


def _possible(wanted: str) -> Precision:
    """Returns a precision, or the automatic one if the device of this process lacks it."""
    try:
        return resolve_precision(cast(Any, wanted))
    except ConfigError:
        return resolve_precision("auto")


def _check_tokenizer(name: str, tokenizer: Any) -> None:
    """Raises ConfigError for a tokenizer that knows no piece of a text: transformers returns one
    for a folder without the files of a tokenizer."""
    if len(tokenizer) <= len(tokenizer.added_tokens_decoder):
        raise ConfigError(
            f"{shown(name)} has no tokenizer",
            key="MODEL",
            value=name,
            hint="save the tokenizer of the model into the same folder",
        )


def _check_rows(name: str, tokenizer: Any, config: Any) -> None:
    size = num_rows(tokenizer)
    if size > config.vocab_size:
        raise ConfigError(
            f"{shown(name)} has a tokenizer of {size:,} tokens for a model of "
            f"{config.vocab_size:,}",
            key="MODEL",
            value=size,
            hint="save the tokenizer that the model was trained with",
        )


def _device() -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count())


def _evaluation_batch(recipe: Recipe) -> int:
    """Returns twice the micro-batch of one process, as evaluations read it."""
    share, size = recipe.batch.global_batch_size, recipe.batch.micro_batch_size
    if size == "auto":
        size = max(n for n in range(1, AUTO_MICRO_BATCH + 1) if share % n == 0)
    return 2 * size


def _model(source: Source, config: Any) -> Any:
    """Returns the model with its own class and weights, in types that the device computes in."""
    import transformers

    name, revision = source.model, source.revision
    if getattr(config, "quantization_config", None) is not None:
        raise ConfigError(
            f"the weights of {shown(name)} are stored quantised, and only others are read",
            key="MODEL",
            value=name,
            hint="name the model that was quantised",
        )
    kind: Any = getattr(transformers, config.architectures[0], None)
    if kind is None:  # a class that transformers does not have: a span head
        ensure_span_head(config)
        kind = transformers.AutoModelForQuestionAnswering
    try:
        with quiet_transformers():
            model, info = kind.from_pretrained(
                name, revision=revision, config=config, dtype="auto", output_loading_info=True
            )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a damaged file can raise anything
        raise not_loaded("MODEL", name, "weights", error) from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise ConfigError(
            f"{shown(name)} lacks {len(absent):,} weights of a {type(model).__name__}, such as "
            f"{excerpt(absent[0])}, and would answer at random",
            key="MODEL",
            value=name,
            hint="name a model that was trained for the task",
        )
    dtype = COMPUTE_DTYPES[source.precision]
    return model if model.dtype in (torch.float32, dtype) else model.to(dtype)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False
