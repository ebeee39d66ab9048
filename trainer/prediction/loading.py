"""The model that answers: of a run, in a folder or on the hub, with its tokenizer and predictor."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from typing import Any

import torch

from trainer.engines.micro_batch import resolve_micro_batch_size
from trainer.engines.precision import COMPUTE_DTYPES, Precision
from trainer.errors import ConfigError
from trainer.models.architecture import stored_config
from trainer.models.pretrained.model_folder import shown
from trainer.models.pretrained.not_loaded import not_loaded
from trainer.models.quiet import quiet_transformers
from trainer.models.span_head import ensure_span_head
from trainer.models.speedups.first_token import compute_first_token_alone
from trainer.models.tokenizers.pair_separator import separate_pairs
from trainer.models.tokenizers.tokenizer import ensure_pad_token, load_tokenizer, num_rows
from trainer.prediction.source import Source
from trainer.recipe.model import Model
from trainer.tasks import task_of
from trainer.tasks.predictor import Predictor
from trainer.tasks.recipe import Recipe
from trainer.wording import excerpt


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


def load_source(
    source: Source, batch_size: int | None = None, *, chat_template: Any = None
) -> LoadedModel:
    """Returns the model of a source on the device of this process.

    `batch_size` is by default that of the run's evaluations. `chat_template` is used if the
    tokenizer has none. Raises ConfigError if files are damaged, or do not fit the task.
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
    batch = recipe.batch
    return 2 * resolve_micro_batch_size(batch.global_batch_size, batch.micro_batch_size, 1)


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
        if source.recipe.task.name != "question_answering":
            raise ConfigError(
                f"{shown(name)} is a model of the class {excerpt(config.architectures[0])}, which "
                f"transformers does not have",
                key="MODEL",
                value=config.architectures[0],
                hint="name a model of a class that it has",
            )
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
